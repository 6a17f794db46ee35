"""Running a job: reading, tokenising, executing and writing, each beside the others.

A reader and a writer have threads of their own, the model those of the engine; this one tokenises
the next part while the last one runs. At most two parts are computed, one is read and two wait to
be written: memory does not grow with the inputs.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from poolc.errors import InputError, InvalidText
from poolc.runtime.bulk import ledger
from poolc.runtime.bulk.commit import Commit, Files, finished_already
from poolc.runtime.bulk.compute import Answered, Asked, Running, tokenise
from poolc.runtime.bulk.dedupe import Earlier
from poolc.runtime.bulk.describe import describe, header, subject_of
from poolc.runtime.bulk.destination import STDOUT, destination
from poolc.runtime.bulk.inputs import Source
from poolc.runtime.bulk.job import BulkJob, BulkResult, check, check_engine
from poolc.runtime.bulk.ledger import Begun, Done
from poolc.runtime.bulk.overlap import Ahead, Behind
from poolc.runtime.bulk.parts import Part, cut, cut_for
from poolc.runtime.bulk.progress import Meter, OnProgress
from poolc.runtime.bulk.records import START, read_records
from poolc.runtime.bulk.shelf import Stored, stored
from poolc.runtime.bulk.storing import Storing
from poolc.runtime.bulk.subject import Subject
from poolc.runtime.engine import Engine

_AT_ONCE = 2  # parts on the engine: the next one fills the streams when the last one runs out


@dataclass(frozen=True, slots=True)
class _Reading:
    """The inputs of a job, and where its parts end."""

    job: BulkJob
    sources: list[Source]
    where: Any

    @property
    def total_bytes(self) -> int | None:
        """Bytes of all files; None where nobody knows."""
        sizes = [source.num_bytes for source in self.sources]
        return None if None in sizes else sum(size or 0 for size in sizes)

    def parts(self, begun: Begun) -> Iterator[Part]:
        """Yield the parts that are not committed. Raises InputError where inputs changed."""
        done = begun.parts
        seen = done if begun.trusts_inputs else ()
        start = begun.end if begun.trusts_inputs else START
        records = read_records(self.sources, self.job.columns, pairs=self.job.of_pairs, start=start)
        first_row = sum(part.num_rows for part in seen)
        num_new = 0
        for part in cut(records, self.where, number=len(seen), first_row=first_row):
            if part.number >= len(done):
                num_new += 1
                yield part
            elif part.digest() != done[part.number].digest:
                raise ledger.rows_changed(done[part.number])
        if num_new == 0 and not done:
            named = ", ".join(str(one) for one in self.job.inputs)
            raise InvalidText(f"no texts in {named}", param="inputs")


class Sink(Protocol):
    """Where the parts of a job go, in order: an output with its ledger, or standard output."""

    storing: Storing
    strict: bool  # whether the first row that cannot be processed ends the job
    schema: Any

    def add(self, answered: Answered) -> object:
        """Take a part that was computed here."""

    def enter(self, done: Done, files: Files = ()) -> object:
        """Take a part that was stored elsewhere, but for ``files``."""

    def earlier(self) -> Earlier | None:
        """Return the texts that later parts may borrow of, where they may."""

    def admit(self) -> str | None:
        """Let other processes put parts; None where there is nothing to put."""


Compute = Callable[[Iterator[Part], Sink, Meter], None]
"""Computes parts and hands them to a sink, in order. Those before one that fails are handed over
before its error is raised."""


def run(engine: Engine, job: BulkJob, on_progress: OnProgress | None = None) -> BulkResult:
    """Run a job, or what is left of it; the output appears when all of it is on disk.

    A job that was cut short goes on where it was, and ends with the same bytes. Rows that cannot
    be processed go to ``<output>.errors.jsonl``; with ``strict``, and to standard output, the first
    one is raised, with file and line. Memory does not grow with the inputs.

    Raises UnsupportedTask and what the engine raises; InputError and InvalidOption for files and
    options that cannot be used.
    """
    sources = check(job)
    check_engine(engine, job)
    subject = subject_of(engine, job)
    return run_elsewhere(partial(_compute, engine, job), subject, job, sources, on_progress)


def run_elsewhere(
    compute: Compute,
    subject: Subject,
    job: BulkJob,
    sources: list[Source],
    on_progress: OnProgress | None = None,
) -> BulkResult:
    """Run a checked job as ``run`` does, by ``compute``, on a model that need not be loaded here.

    ``sources`` is what ``check`` returned.
    """
    settings = job.settings
    where = cut_for(subject.spec, job.task, settings.part_rows, settings.memory_limit)
    reading = _Reading(job, sources, where)
    if job.output == STDOUT:
        return _to_stdout(compute, subject, reading, on_progress)
    return _to_output(compute, subject, reading, on_progress)


def _to_output(
    compute: Compute, subject: Subject, reading: _Reading, on_progress: OnProgress | None
) -> BulkResult:
    job = reading.job
    place, told = destination(job.output), header(subject, job, reading.sources, reading.where)
    digests = (part.digest() for part in reading.parts(Begun()))
    before = finished_already(place, job, told, digests)
    if before is not None:
        shelf = place.shelf()  # what a process left that was killed while it cleaned up
        shelf.clear()
        shelf.close()
        return _result(job, before, before["rows"] + before["rows_failed"], Meter(None, None))
    commit = Commit(subject, job, place, told)
    try:
        begun = commit.begun
        resumed = begun.num_rows, sum(part.num_bytes for part in begun.parts)
        meter = Meter(on_progress, reading.total_bytes, resumed=resumed)
        compute(reading.parts(begun), commit, meter)
        meta = commit.finish()
    finally:
        commit.close()
    return _result(job, meta, resumed[0], meter, place.errors_name())


class _Stdout:
    """Parts as lines of standard output."""

    strict = True
    schema: Any = None

    def __init__(self, subject: Subject, job: BulkJob) -> None:
        self.storing = Storing(subject, job, of_parts=False)
        self.meta: dict[str, Any] = {}
        self.num_rows = self.num_truncated = 0
        self._lines = self.storing.output()

    def add(self, answered: Answered) -> None:
        lines: list[Any] = []

        def put(name: str, data: Any) -> Stored:
            lines.append((name, data))
            return stored(name, data)

        self.enter(self.storing.store(self._lines, answered, put), lines)

    def enter(self, done: Done, files: Files = ()) -> None:
        if not self.meta and done.shape is not None:
            subject, job = self.storing.subject, self.storing.job
            self.meta = describe(subject, job, done.shape, done.dtype or "")
        for name, data in files:
            if done.file is not None and name == done.file.name:
                sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        self.num_rows += done.num_written
        self.num_truncated += done.num_truncated

    def earlier(self) -> None:
        return None

    def admit(self) -> None:
        return None


def _to_stdout(
    compute: Compute, subject: Subject, reading: _Reading, on_progress: OnProgress | None
) -> BulkResult:
    job = reading.job
    sink, meter = _Stdout(subject, job), Meter(on_progress, reading.total_bytes)
    compute(reading.parts(Begun()), sink, meter)
    counts = {"rows": sink.num_rows, "rows_failed": 0}
    if job.params.truncate:
        counts["rows_truncated"] = sink.num_truncated
    return _result(job, {**sink.meta, **counts}, 0, meter)


def _result(
    job: BulkJob, meta: Any, num_resumed: int, meter: Meter, errors: str | None = None
) -> BulkResult:
    failed = int(meta["rows_failed"])
    return BulkResult(
        int(meta["rows"]),
        job.output,
        meta,
        failed,
        errors if failed else None,
        int(meta.get("rows_truncated", 0)),
        num_resumed,
        meter.num_tokens,
        meter.num_computed,
        meter.elapsed_s,
    )


def _compute(engine: Engine, job: BulkJob, parts: Iterator[Part], sink: Sink, meter: Meter) -> None:
    """Compute parts and hand their answers to ``sink``, in order, on a thread of its own."""
    asked = Asked(job.task, job.params, job.settings.dedupe)
    earlier = sink.earlier()
    running: deque[tuple[Part, Running]] = deque()
    writer = Behind(sink.add)

    def finish_first() -> None:
        part, work = running.popleft()
        meter.start_part(len(part.records), part.num_bytes, work.num_tokens)
        answered = work.finish(meter.add)
        meter.end_part(len(answered.failures))
        writer.put(answered)

    try:
        with Ahead(parts) as coming:
            failure: InputError | None = None
            try:
                for part in coming:
                    found = tokenise(engine, asked, part, earlier)
                    if sink.strict and found.failures:
                        failure = next(iter(found.failures.values()))
                        break
                    running.append((part, Running(engine, asked, found)))
                    if len(running) == _AT_ONCE:
                        finish_first()
            except InputError as error:
                failure = error
            while running:
                finish_first()
            if failure is not None:
                raise failure
    finally:
        for _, work in running:
            work.cancel()
        try:
            writer.close()
        finally:
            if earlier is not None:
                earlier.close()
