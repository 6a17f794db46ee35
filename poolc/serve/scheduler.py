"""The queue of one model: who is admitted, what runs together, who fails, and how it ends.

A request is admitted by tokens: by an estimate before it is tokenised on a thread, then by their
number. While streams are busy, requests collect; as soon as one is free, a window of what waits is
planned into micro-batches. Nothing waits for company: an idle server answers at once, with all
cores. The first turn of every request takes an express lane beside the bulk of big ones, so that a
query does not wait for a corpus. All state is touched on one event loop only.

Knows nothing about HTTP, names or what a result means.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from poolc.errors import BackendError, DeviceOutOfMemory, InvalidText
from poolc.runtime.chunking import chunks
from poolc.runtime.cores import allowed_cores
from poolc.runtime.engine import Engine
from poolc.runtime.heads import Result
from poolc.runtime.request import Item, Params, Prepared, Row
from poolc.serve.admission import Admission
from poolc.serve.errors import Draining
from poolc.serve.metrics import NoWatch, Watch
from poolc.serve.settings import Settings
from poolc.spec import Task

log = logging.getLogger("poolc.serve")

# Tokens a stream that are planned together, or a micro-batch's worth where that is more (GPUs).
# Wide windows sort the padding away (mixed lengths are padded by 8 % with 1024 tokens, by 3 % with
# 4096), narrow ones let newcomers in sooner.
_EXPRESS_WINDOW_TOKENS = 1024
_BULK_WINDOW_TOKENS = 4096
# What one request may take before the next one gets its turn: at least this, and at least this
# share of a micro-batch.
_TURN_TOKENS = 256
_TURNS_A_BATCH = 8
# A request of fewer is tokenised at once: going to a thread and back would take longer.
_FEW_TOKENS = 64
# Results of more sequences than this are finished on a thread.
_LARGE_RESULT = 32
_RESTART_AFTER = 3  # micro-batches that fail in a row
# What a probe asks for, cheapest first.
_PROBED = (Task.EMBED, Task.CLASSIFY, Task.SCORE, Task.REWARD, Task.ENCODE)


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished request: the task's result, the tokens that it took, and what was left out."""

    result: Result
    num_tokens: int
    truncated: npt.NDArray[np.bool_]  # whether tokens of each text were cut off
    tokenize_s: float = 0.0
    queue_s: float = 0.0  # until its first micro-batch ran
    inference_s: float = 0.0  # from there until its last one had run


@dataclass(slots=True, eq=False, repr=False)
class _Job:
    """An admitted request."""

    prepared: Prepared
    done: asyncio.Future[list[Row]]
    rows: list[Row]  # filled as micro-batches return
    missing_rows: int
    queued_tokens: int  # of rows that are missing
    arrived_s: float
    priority: int
    first_tokens: int  # of its first turn, about
    started_s: float = 0.0  # when its first micro-batch began; 0 before
    taken: int = 0  # sequences that have been planned

    @classmethod
    def of(cls, prepared: Prepared, priority: int, turn_tokens: int) -> _Job:
        count, num_tokens = len(prepared.sequences), prepared.num_tokens
        done = asyncio.get_running_loop().create_future()
        first = min(num_tokens, turn_tokens)
        now_s = time.perf_counter()
        return cls(prepared, done, [{}] * count, count, num_tokens, now_s, priority, first)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class _Place:
    """One sequence of a job, on its way through a micro-batch."""

    job: _Job
    index: int

    @property
    def num_tokens(self) -> int:
        return len(self.job.prepared.sequences[self.index])


_Batch = list[_Place]


class Scheduler:
    """Runs requests on one engine. Made and used on one event loop."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self.watch: Watch = NoWatch()
        self._engine = engine
        # As many threads as cores: more would only take caches from each other.
        self._tokenizing = ThreadPoolExecutor(allowed_cores(), thread_name_prefix="poolc-tokenize")
        self.admission = Admission(settings, engine.streams)
        self._max_items = settings.max_items
        budget = engine.budget_tokens
        self._express_tokens = max(_EXPRESS_WINDOW_TOKENS, budget)
        self._bulk_tokens = max(_BULK_WINDOW_TOKENS, budget)
        self._turn_tokens = max(_TURN_TOKENS, budget // _TURNS_A_BATCH)
        self._arrived: deque[_Job] = deque()  # jobs that had no turn yet
        self._begun: deque[_Job] = deque()  # jobs that wait for another turn
        self._express: deque[_Batch] = deque()  # planned first turns
        self._bulk: deque[_Batch] = deque()  # planned later turns
        self._express_is_next = True  # the lanes alternate: neither starves the other
        self._running = 0  # micro-batches on the executor
        self._dispatching = False  # whether the event loop will come to it
        self._jobs: set[_Job] = set()  # admitted and not yet ended
        self._failures = 0  # micro-batches that failed inside since the last one that did not
        self._restarting: asyncio.Future[None] | None = None  # since the last that did not fail
        # Told what a process has lost that only another process can have again.
        self.on_lost: Callable[[str], None] = log.critical
        self._lost = False
        self._draining = False
        self._closed = False  # what was let in is refused too
        self.open = 0  # requests that were let in and are not yet answered
        self._idle = asyncio.Event()
        self._idle.set()

    async def ask(
        self, task: Task, items: Sequence[Item], params: Params, *, priority: int = 0
    ) -> Answer:
        """Answer one request; cancelling takes it out of the queue.

        Requests of a lower ``priority`` come first; of one, the first that came.
        Raises what ``Engine.prepare``, ``execute`` and ``finish`` raise, InvalidText for too many
        items, Overloaded and Draining.
        """
        if self._draining:
            raise Draining()
        if len(items) > self._max_items:
            raise InvalidText(
                f"the request has {len(items)} items; this server takes {self._max_items}: "
                "send several requests"
            )
        # Chunked, a text is as many sequences as it needs.
        most = None if chunks(self._engine.spec, task, params) else self._engine.max_length
        expected_tokens = sum(_estimate(item, most) for item in items)
        self.admission.refuse_if_full(expected_tokens, priority)
        self.open += 1
        self._idle.clear()
        try:
            began_s = time.perf_counter()
            with self.admission.reserved(expected_tokens):
                prepare = partial(self._engine.prepare, task, items, params)
                if expected_tokens <= _FEW_TOKENS:
                    prepared = prepare()
                else:
                    loop = asyncio.get_running_loop()
                    prepared = await loop.run_in_executor(self._tokenizing, prepare)
            tokenize_s = time.perf_counter() - began_s
            self.watch.tokenized(tokenize_s)
            job = await self._run(prepared, priority)
            rows, inference_s = job.rows, time.perf_counter() - job.started_s
            if len(rows) > _LARGE_RESULT:
                result = await asyncio.to_thread(self._engine.finish, prepared, rows)
            else:
                result = self._engine.finish(prepared, rows)
            queue_s = job.started_s - job.arrived_s
            return Answer(
                *(result, prepared.num_tokens, prepared.truncated),
                *(tokenize_s, queue_s, inference_s),
            )
        finally:
            self.open -= 1
            if not self.open:
                self._idle.set()

    async def probe(self) -> None:
        """Run the model on a short text, past the queue, on each of its devices.

        Raises Draining, or what the engine raises.
        """
        if self._draining:
            raise Draining()
        engine = self._engine
        task = next(task for task in _PROBED if task in engine.spec.tasks)
        item: Item = ("ready", "ready") if task is Task.SCORE else "ready"
        params = Params(prompt="", truncate=True, label=0 if task is Task.SCORE else None)
        router = engine.spec.router
        if router is not None and not router.has_default:
            params = replace(params, side=next(iter(router.sides)))
        prepared = await asyncio.to_thread(engine.prepare, task, [item], params)
        loop = asyncio.get_running_loop()
        for one in engine.by_device():
            try:
                rows = await loop.run_in_executor(
                    engine.executor, one.execute, prepared.sequences, prepared.output_set
                )
            except BackendError as error:
                # Who is not ready is asked nothing else: it has to get better by this alone.
                self._count_failure(error)
                raise
            engine.finish(prepared, rows)

    async def drain(self, timeout_s: float) -> bool:
        """Refuse new requests and answer those that were let in.

        Requests that are left after ``timeout_s`` fail with Draining; returns whether none was.
        """
        self._draining = True
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            self._closed = True
            for job in tuple(self._jobs):
                self._end(job, Draining())
            return False
        return True

    def gauges(self) -> dict[str, float]:
        """Return how much waits, and for how long, in tokens, requests and seconds."""
        oldest_s = min((job.arrived_s for job in self._jobs), default=None)
        age_s = 0.0 if oldest_s is None else time.perf_counter() - oldest_s
        return {
            "queue_tokens": float(self.admission.queued_tokens),
            "queue_requests": float(self.open),
            "queue_oldest_seconds": age_s,
        }

    async def _run(self, prepared: Prepared, priority: int) -> _Job:
        """Queue a request and wait for the rows of all its sequences."""
        if self._closed:
            raise Draining()
        self.admission.refuse_if_full(prepared.num_tokens, priority)
        job = _Job.of(prepared, priority, self._turn_tokens)
        self._jobs.add(job)
        self.admission.queued_tokens += job.queued_tokens
        self.admission.waits(job.first_tokens, priority)
        _enqueue(self._arrived, job)
        try:
            self._dispatch_soon()
            await job.done
            return job
        finally:
            self._end(job)

    # Planning.

    def _dispatch_soon(self) -> None:
        """Dispatch once whoever has come by now is queued: they run together, and wait for nothing.

        Requests that were received at once are all read before the event loop comes to this.
        """
        if not self._dispatching:
            self._dispatching = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    def _dispatch(self) -> None:
        """Start micro-batches until every stream is busy or nothing waits."""
        self._dispatching = False
        while self._running < self._engine.streams:
            batch = self._next_batch()
            if not batch:
                return
            try:
                self._start(batch)
            except Exception as error:  # whatever it is, nobody must wait for ever
                self._failed(batch, error)

    def _next_batch(self) -> _Batch:
        """Return the next micro-batch, of both lanes in turn; empty when nothing waits."""
        while True:
            while not self._express and self._arrived:
                self._express += self._plan(self._take(self._arrived, self._express_tokens))
            while not self._bulk and self._begun:
                self._bulk += self._plan(self._take(self._begun, self._bulk_tokens))
            express = self._express and (self._express_is_next or not self._bulk)
            lane = self._express if express else self._bulk
            if not lane:
                return []
            # Rows that nobody waits for any more are not worth computing.
            batch = [place for place in lane.popleft() if not place.job.done.done()]
            if batch:
                self._express_is_next = not express
                return batch

    def _take(self, queue: deque[_Job], tokens_per_stream: int) -> _Batch:
        """Take a window of one output set from a queue of requests, in turns."""
        output_set = queue[0].prepared.output_set
        room = self._engine.streams * tokens_per_stream
        window: _Batch = []
        others: list[_Job] = []
        while room > 0 and queue:
            job = queue.popleft()
            if job.prepared.output_set != output_set:
                others.append(job)
                continue
            if not job.taken:
                self.admission.waits_no_more(job.first_tokens, job.priority)
            turn = _take_turn(job, min(room, self._turn_tokens))
            room -= sum(place.num_tokens for place in turn)
            window += turn
            if job.taken < len(job.rows):
                _enqueue(self._begun, job)
        queue.extendleft(reversed(others))  # their turn comes first in the next window
        return window

    def _plan(self, window: _Batch) -> list[_Batch]:
        try:
            # A stream that is busy has work: nothing is cut smaller for it.
            idle = max(1, self._engine.streams - self._running)
            plan = self._engine.plan([place.num_tokens for place in window], idle)
        except Exception as error:  # whatever it is, nobody must wait for ever
            for job in {place.job for place in window}:
                self._end(job, error)
            return []
        return [[window[i] for i in batch.indices] for batch in plan]

    # Running.

    def _start(self, batch: _Batch) -> None:
        sequences = [place.job.prepared.sequences[place.index] for place in batch]
        output_set = batch[0].job.prepared.output_set
        waiting = self._express or self._bulk or self._arrived or self._begun
        execute = partial(self._engine.execute, alone=not (self._running or waiting))
        running = self._engine.executor.submit(execute, sequences, output_set)
        self._running += 1
        now_s = time.perf_counter()
        for job in {place.job for place in batch if not place.job.started_s}:
            job.started_s = now_s
            self.watch.queued(now_s - job.arrived_s)
        finished = partial(self._finished, batch, now_s)
        asyncio.wrap_future(running).add_done_callback(finished)

    def _finished(
        self, batch: _Batch, started_s: float, running: asyncio.Future[list[Row]]
    ) -> None:
        self._running -= 1
        error = Draining() if running.cancelled() else running.exception()
        if error is None and len(running.result()) != len(batch):
            error = BackendError(f"{len(running.result())} rows came back for {len(batch)}")
        if error is None:
            self._failures = 0
            if self._restarting is not None and self._restarting.done():
                self._restarting = None
            if self._engine.lost_devices and not self._lost:
                self._lost = True
                self.on_lost(f"{', '.join(self._engine.lost_devices)} is lost")
            self._measure(batch, time.perf_counter() - started_s)
            self._scatter(batch, running.result())
        else:
            self._count_failure(error)
            self._failed(batch, error)
        self._dispatch()

    def _scatter(self, batch: _Batch, rows: Sequence[Row]) -> None:
        for place, row in zip(batch, rows, strict=True):
            job = place.job
            if job.done.done():
                continue
            job.rows[place.index] = row
            job.missing_rows -= 1
            job.queued_tokens -= place.num_tokens
            self.admission.queued_tokens -= place.num_tokens
            if not job.missing_rows:
                job.done.set_result(job.rows)

    def _failed(self, batch: _Batch, error: BaseException) -> None:
        """Fail a micro-batch of one request; split one of several: only the guilty is to fail."""
        alone: dict[_Job, _Batch] = {}
        for place in batch:
            alone.setdefault(place.job, []).append(place)
        if len(alone) == 1:
            self._end(batch[0].job, error)
        else:
            self._express.extendleft(alone.values())

    def _count_failure(self, error: BaseException) -> None:
        """Open the model anew, once, where one micro-batch after the other fails inside.

        Whether that helped is what the probe says: it runs the model. On a GPU it does not once
        the device is lost to the process.
        """
        if not isinstance(error, BackendError) or isinstance(error, DeviceOutOfMemory):
            return
        self._failures += 1
        if self._failures >= _RESTART_AFTER and self._restarting is None:
            log.error("%d micro-batches failed in a row: the model is opened anew", self._failures)
            self._restarting = asyncio.ensure_future(asyncio.to_thread(self._engine.restart))
            self._restarting.add_done_callback(self._restarted)

    def _restarted(self, restarting: asyncio.Future[None]) -> None:
        if restarting.cancelled() or restarting.exception() is None:
            return
        log.error("the model cannot be opened anew", exc_info=restarting.exception())
        if self._engine.devices != ("cpu",):
            self.on_lost(f"{', '.join(self._engine.devices)} is lost")

    def _end(self, job: _Job, error: BaseException | None = None) -> None:
        """Take a job out of the queue; with an error, fail it. Ending twice changes nothing."""
        self._jobs.discard(job)
        self.admission.queued_tokens -= job.queued_tokens
        job.queued_tokens = 0
        if job.taken < len(job.rows):
            (self._begun if job.taken else self._arrived).remove(job)
            if not job.taken:
                self.admission.waits_no_more(job.first_tokens, job.priority)
            job.taken = len(job.rows)
        if error is not None and not job.done.done():
            job.done.set_exception(error)

    def _measure(self, batch: _Batch, seconds: float) -> None:
        lengths = [place.num_tokens for place in batch]
        self.watch.executed(sum(lengths), max(lengths) * len(lengths), seconds)
        self.admission.measured(sum(lengths), seconds)


def _enqueue(queue: deque[_Job], job: _Job) -> None:
    """Put a job behind those of its priority and of lower ones."""
    place = len(queue)
    while place and queue[place - 1].priority > job.priority:
        place -= 1
    queue.insert(place, job)


def _take_turn(job: _Job, tokens: int) -> _Batch:
    """Take a job's next sequences: at least one, and about ``tokens``."""
    turn: _Batch = []
    while tokens > 0 and job.taken < len(job.rows):
        place = _Place(job, job.taken)
        job.taken += 1
        tokens -= place.num_tokens
        turn.append(place)
    return turn


def _estimate(item: Item, most: int | None) -> int:
    """Return about how many tokens an item has, and ``most`` where it cannot have more."""
    num_tokens = sum(map(_estimate_part, item if isinstance(item, tuple) else (item,)))
    return num_tokens if most is None else min(num_tokens, most)


def _estimate_part(part: str | Sequence[int]) -> int:
    # Special tokens aside: English has 4 to 5 characters a token, other scripts 1 to 3.
    return 2 + (len(part) // 4 if isinstance(part, str) and part.isascii() else len(part))
