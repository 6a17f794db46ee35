"""The workers of one job: begun, added while parts wait, let go when none do, buried when lost.

Knows how many there are and how much each has to do; what it is, is the dispatcher's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from poolc.cluster.calls import Calls
from poolc.cluster.library import import_ray
from poolc.cluster.worker import Introduction, Model, Worker
from poolc.cluster.workers import Workers
from poolc.errors import ArtifactIncompatible, BackendError, InvalidOption, PoolcError
from poolc.runtime.bulk.job import BulkJob
from poolc.spec import Target

PER_WORKER = 2  # parts: the next one is tokenised while the last one runs
_THREADS = PER_WORKER + 2  # storing a part must not wait for the computing of others
_MOST_FAILED_STARTS = 3  # in a row
_IDLE_S = 30.0  # until a worker that waits for a slow input is let go
_PATIENCE_S = 60.0  # until somebody is told that no worker has begun
_LOOK_S = 0.5

OnEvent = Callable[[dict[str, Any]], None]


@dataclass(slots=True, eq=False)
class Member:
    """A worker. ``parts`` are the numbers of those that it has; ready once it was introduced."""

    actor: Any
    parts: set[int] = field(default_factory=set)
    ready: bool = False
    idle_since_s: float = field(default_factory=time.monotonic)


class Crew:
    """A context: when it ends, so do the workers.

    ``on_lost`` is told of each worker that ended with parts undone.
    """

    def __init__(
        self, workers: Workers, model: Model, target: Target, job: BulkJob, on_event: OnEvent
    ) -> None:
        self._ray = import_ray()
        self._workers, self._model, self._job, self._on_event = workers, model, job, on_event
        self.calls = Calls(self._ended)
        self.on_lost: Callable[[Member, Exception], None] = lambda member, error: None
        self.members: list[Member] = []
        self._first: Introduction | None = None
        self._failed_starts = 0
        self._most = self._room(target) if workers.most is None else workers.most
        options = workers.options(target)
        self._actor_class = self._ray.remote(max_concurrency=_THREADS, **options)(Worker)

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *error: object) -> None:
        for member in [*self.members]:
            self._let_go(member)

    def open(self) -> Introduction:
        """Begin the first workers; return what the first one that is ready says of itself.

        Raises what loading the model raises there, and BackendError where workers end by it.
        """
        for _ in range(self._workers.least):
            self._begin()
        waited_s, told = time.monotonic(), False
        while self._first is None:
            self.calls.wait(_LOOK_S)
            if not told and time.monotonic() - waited_s > _PATIENCE_S:
                told = True
                self._warn(
                    "no worker has begun yet: the cluster may have no machine free with "
                    f"{self._workers.num_cpus:g} CPUs for it (see `ray status`)"
                )
        return self._first

    def free(self, *, urgent: bool = False) -> Member | None:
        """Return the ready worker that has least to do, if it has room for a part.

        ``urgent``: room or not, since what the others have may wait for this part.
        """
        ready = [member for member in self.members if member.ready]
        least = min(ready, key=lambda member: len(member.parts), default=None)
        if least is None or urgent or len(least.parts) < PER_WORKER:
            return least
        return None

    def num_ready(self) -> int:
        """Return how many workers can compute now."""
        return sum(member.ready for member in self.members)

    def fit(self, *, waiting: int, ended: bool) -> None:
        """Begin workers where so many parts wait for one; let go those that are left without.

        ``ended``: no more parts will come than those that wait.
        """
        now_s, ready = time.monotonic(), self.num_ready()
        starting = len(self.members) - ready
        if waiting and not starting and self.free() is None:
            # Twice as many each time: a large cluster is full after a few.
            new = min(max(ready, 1), self._most - len(self.members))
            for _ in range(min(new, -(-waiting // PER_WORKER)) if ended else new):
                self._begin()
        for member in [*self.members]:
            if member.parts or waiting:
                member.idle_since_s = now_s
            elif ended or (
                now_s - member.idle_since_s > _IDLE_S and len(self.members) > self._workers.least
            ):
                self._let_go(member)
        if not self.members and waiting:
            self._begin()

    def release(self, member: Member, number: int) -> None:
        """Take note that a worker has a part no more."""
        member.parts.discard(number)
        member.idle_since_s = time.monotonic()

    def _begin(self) -> None:
        member = Member(self._actor_class.remote(self._workers.num_cores))
        self.members.append(member)
        reference = member.actor.begin.remote(self._model, self._job)
        self.calls.ask(member, reference, lambda said: self._introduced(member, said))

    def _introduced(self, member: Member, said: Introduction | PoolcError) -> None:
        if isinstance(said, PoolcError):
            if self._first is None:
                raise said
            self._turn_away(member, str(said))
            return
        self._failed_starts = 0
        if self._first is None:
            self._first = said
        elif problem := self._differs(self._first, said):
            self._turn_away(member, problem)
            return
        member.ready, member.idle_since_s = True, time.monotonic()

    def _differs(self, first: Introduction, said: Introduction) -> str | None:
        one, other = first.subject, said.subject
        if one.artifact.artifact_id != other.artifact.artifact_id:
            return (
                f"{said.node} loads the artifact {other.artifact.artifact_id[:12]}, "
                f"{first.node} {one.artifact.artifact_id[:12]}"
            )
        if replace(one, host=other.host, artifact=other.artifact) != other:
            return f"{said.node} reads the model otherwise than {first.node}: another poolc?"
        if one.host != other.host and not self._job.settings.allow_different_host:
            return (
                f"{said.node} may round differently ({_told(other.host)}) than {first.node} "
                f"({_told(one.host)}); --allow-different-host uses both"
            )
        return None

    def _turn_away(self, member: Member, problem: str) -> None:
        """Do without a worker; another one would be no better, so there is one fewer at most."""
        self._warn(f"a worker is not used: {problem}")
        self._most = max(self._most - 1, 1)
        self._let_go(member)
        if not self.members:
            raise ArtifactIncompatible(f"no worker is left: {problem}")

    def _ended(self, member: Member, error: Exception) -> None:
        if member not in self.members:
            return
        self.calls.forget(member)
        self.members.remove(member)
        reason = " ".join(str(error).split()) or type(error).__name__
        if not member.ready:
            self._failed_starts += 1
            if self._failed_starts >= _MOST_FAILED_STARTS:
                raise BackendError(f"workers end before they are ready: {reason}")
        self._warn(f"a worker was lost; another one does its parts: {_short(reason)}")
        if len(self.members) < self._workers.least:
            self._begin()
        self.on_lost(member, error)

    def _let_go(self, member: Member) -> None:
        self.calls.forget(member)
        self.members.remove(member)
        self._ray.kill(member.actor)

    def _room(self, target: Target) -> int:
        room = self._workers.room(target, self._ray.cluster_resources())
        return max(room, self._workers.least)

    def _warn(self, message: str) -> None:
        self._on_event({"event": "warning", "message": message})


def check_room(workers: Workers, target: Target, resources: dict[str, float]) -> None:
    """Refuse workers that a cluster which does not grow will never have. Raises InvalidOption."""
    if workers.room(target, resources) < 1:
        raise InvalidOption(
            f"a worker wants {workers.num_cpus:g} CPUs and {workers.gpus(target):g} GPUs, this "
            f"machine gives {resources.get('CPU', 0):g} and {resources.get('GPU', 0):g}: ask for "
            "fewer, or name a cluster (--ray-address)",
            param="num_cpus",
        )


def _told(host: Any) -> str:
    return ", ".join(f"{name} {value}" for name, value in host.items())


def _short(reason: str) -> str:
    return reason if len(reason) <= 300 else f"{reason[:300]}..."
