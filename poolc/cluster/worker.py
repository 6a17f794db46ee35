"""One worker: a process with a loaded model, which computes parts of a job and stores them.

Runs in an actor of Ray, on any machine of a cluster; imports no Ray. What it refuses comes back as
a value: Ray would wrap an exception in others.
"""

from __future__ import annotations

import functools
import os
import socket
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np

from poolc import api
from poolc.errors import ArtifactNotFound, InputError, PoolcError
from poolc.model_cache.artifact import is_artifact
from poolc.model_cache.store import Store
from poolc.runtime.bulk.commit import Files
from poolc.runtime.bulk.compute import Answered, Asked, Running, Tokenised, tokenise
from poolc.runtime.bulk.dedupe import Found
from poolc.runtime.bulk.describe import subject_of
from poolc.runtime.bulk.destination import destination
from poolc.runtime.bulk.job import BulkJob, check_engine, job_for_model
from poolc.runtime.bulk.ledger import Done
from poolc.runtime.bulk.parts import Part
from poolc.runtime.bulk.shelf import Stored, stored
from poolc.runtime.bulk.storing import Storing
from poolc.runtime.bulk.subject import Subject
from poolc.runtime.cores import limit_cores
from poolc.runtime.engine import Engine
from poolc.runtime.request import Item

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Model:
    """An artifact by id and where it was found; ``options`` are those of ``poolc.load``."""

    path: str
    artifact_id: str
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Introduction:
    """A worker that is ready: its model, and the job as one of what that does."""

    subject: Subject
    job: BulkJob
    node: str
    pid: int


@dataclass(frozen=True, slots=True)
class Computed:
    """A part whose answers a worker holds. ``failure`` stopped it, of jobs that are strict.

    ``borrows``: rows of it have answers of earlier parts, which only the owner of the job can read.
    """

    num_failed: int
    borrows: bool
    failure: InputError | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """How parts are stored, and where: ``token`` lets a worker in (``Shelf.admit``).

    ``output`` is absolute: workers run in other folders. None: nothing can be put anywhere.
    """

    storing: Storing
    output: str
    token: str | None


@dataclass(frozen=True, slots=True)
class Delivered:
    """A part that is stored, but for ``files``; ``schema`` is that of tables."""

    done: Done
    files: Files
    schema: Any


def answering(method: Callable[P, T]) -> Callable[P, T | PoolcError]:
    """Return what a method raises on purpose instead of raising it."""

    @functools.wraps(method)
    def call(*args: P.args, **options: P.kwargs) -> T | PoolcError:
        try:
            return method(*args, **options)
        except PoolcError as error:
            return error

    return call


class Worker:
    """A model at work. Methods run on several threads: the next part is tokenised meanwhile."""

    def __init__(self, num_cores: int) -> None:
        limit_cores(num_cores)
        os.environ["RAYON_NUM_THREADS"] = str(num_cores)  # the tokenizer's threads
        self._tokenising = threading.Lock()
        self._tokenised: dict[int, Tokenised] = {}
        self._answered: dict[int, Answered] = {}
        self._engine: Engine
        self._asked: Asked

    @answering
    def begin(self, model: Model, job: BulkJob) -> Introduction:
        """Load the model for a job. Raises as ``poolc.load`` does, and what the model refuses."""
        self._engine = api.load(_reached(model), **model.options)
        job = job_for_model(self._engine, job)
        check_engine(self._engine, job)
        self._asked = Asked(job.task, job.params, job.settings.dedupe)
        subject = subject_of(self._engine, job)
        return Introduction(subject, job, socket.gethostname(), os.getpid())

    @answering
    def prepare(self, part: Part, found: Mapping[int, Found]) -> list[bytes]:
        """Tokenise a part that ``compute`` is asked for next; return its distinct texts' hashes.

        ``found`` are the rows whose texts were computed in earlier parts.
        """
        with self._tokenising:
            tokenised = tokenise(self._engine, self._asked, part, _Looked(part, found))
        self._tokenised[part.number] = tokenised
        return tokenised.digests

    @answering
    def compute(self, part: Part, found: Mapping[int, Found] | None, *, strict: bool) -> Computed:
        """Compute a part and hold its answers until they are stored or handed over."""
        with self._tokenising:
            # Micro-batches are queued before those of the part that is tokenised next.
            tokenised = self._tokenised.pop(part.number, None)
            if tokenised is None:
                known = None if found is None else _Looked(part, found)
                tokenised = tokenise(self._engine, self._asked, part, known)
            failures = tokenised.failures
            if strict and failures:
                return Computed(len(failures), borrows=False, failure=next(iter(failures.values())))
            running = Running(self._engine, self._asked, tokenised)
        answered = running.finish(lambda *_: None)
        self._answered[part.number] = answered
        return Computed(len(failures), bool(answered.borrowed))

    @answering
    def store(self, number: int, order: Order, schema: Any) -> Delivered:
        """Store the answers of a part, if the output can be reached from here, or return them."""
        answered = self._answered[number]
        parts = None if order.token is None else destination(order.output).open_parts(order.token)
        output, files = order.storing.output(schema), list[tuple[str, Any]]()

        def keep(name: str, data: Any) -> Stored:
            files.append((name, np.frombuffer(data, np.uint8)))  # which Ray passes on uncopied
            return stored(name, data)

        done = order.storing.store(output, answered, keep if parts is None else parts.put)
        del self._answered[number]
        return Delivered(done, files, output.schema)

    def hand_over(self, number: int) -> Answered:
        """Return the answers of a part, to be stored by who asks."""
        return self._answered.pop(number)


class _Looked:
    """The texts of a part that were looked up by the owner of the job."""

    def __init__(self, part: Part, found: Mapping[int, Found]) -> None:
        self._found: dict[Item, Found] = {}
        self._found |= {part.records[row].item: place for row, place in found.items()}

    def find(self, items: Iterable[Item]) -> dict[Item, Found]:
        return self._found

    def add(self, part: int, digests: Sequence[bytes]) -> None:
        pass  # told with the answer


def _reached(model: Model) -> Path:
    """Return where the artifact is on this machine: where it was found, or in the store."""
    for path in (Path(model.path), Store.default().artifact_path(model.artifact_id)):
        if is_artifact(path):
            return path
    raise ArtifactNotFound(
        f"{socket.gethostname()} has no artifact {model.path}, nor {model.artifact_id[:12]} in its "
        "store: workers need it on a folder that all machines share, or compiled on each"
    )
