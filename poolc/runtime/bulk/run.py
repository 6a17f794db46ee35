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
from typing import Any

from poolc.errors import InputError, InvalidText
from poolc.runtime.bulk import ledger
from poolc.runtime.bulk.answers import shape_and_dtype
from poolc.runtime.bulk.commit import Commit, finished_already
from poolc.runtime.bulk.compute import Answered, Asked, Running, tokenise
from poolc.runtime.bulk.dedupe import Earlier
from poolc.runtime.bulk.describe import describe, header
from poolc.runtime.bulk.destination import STDOUT, destination
from poolc.runtime.bulk.inputs import Source
from poolc.runtime.bulk.job import BulkJob, BulkResult, check, check_model
from poolc.runtime.bulk.ledger import Begun
from poolc.runtime.bulk.outputs import JsonLines, Layout
from poolc.runtime.bulk.overlap import Ahead, Behind
from poolc.runtime.bulk.parts import Part, cut, cut_for
from poolc.runtime.bulk.progress import Meter, OnProgress
from poolc.runtime.bulk.records import START, read_records
from poolc.runtime.engine import Engine
from poolc.runtime.heads import check_params

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


def run(engine: Engine, job: BulkJob, on_progress: OnProgress | None = None) -> BulkResult:
    """Run a job, or what is left of it; the output appears when all of it is on disk.

    A job that was cut short goes on where it was, and ends with the same bytes. Rows that cannot
    be processed go to ``<output>.errors.jsonl``; with ``strict``, and to standard output, the first
    one is raised, with file and line. Memory does not grow with the inputs.

    Raises UnsupportedTask and what the engine raises; InputError and InvalidOption for files and
    options that cannot be used.
    """
    sources = check(job)
    engine.require(job.task)
    check_params(engine.spec, job.task, job.params)
    check_model(engine.spec, job)
    settings = job.settings
    where = cut_for(engine.spec, job.task, settings.part_rows, settings.memory_limit)
    reading = _Reading(job, sources, where)
    if job.output == STDOUT:
        return _to_stdout(engine, reading, on_progress)
    return _to_output(engine, reading, on_progress)


def _to_output(engine: Engine, reading: _Reading, on_progress: OnProgress | None) -> BulkResult:
    job = reading.job
    place, told = destination(job.output), header(engine, job, reading.sources, reading.where)
    digests = (part.digest() for part in reading.parts(Begun()))
    before = finished_already(place, job, told, digests)
    if before is not None:
        shelf = place.shelf()  # what a process left that was killed while it cleaned up
        shelf.clear()
        shelf.close()
        return _result(job, before, before["rows"] + before["rows_failed"], Meter(None, None))
    commit = Commit(engine, job, place, told)
    try:
        begun = commit.begun
        resumed = begun.num_rows, sum(part.num_bytes for part in begun.parts)
        meter = Meter(on_progress, reading.total_bytes, resumed=resumed)

        earlier = commit.earlier()
        try:
            _compute(engine, job, reading.parts(begun), meter, commit.add, earlier=earlier)
        finally:
            if earlier is not None:
                earlier.close()
        meta = commit.finish()
    finally:
        commit.close()
    return _result(job, meta, resumed[0], meter, place.errors_name())


def _to_stdout(engine: Engine, reading: _Reading, on_progress: OnProgress | None) -> BulkResult:
    job = reading.job
    lines = JsonLines(Layout(job.columns, bool(job.params.truncate)))
    meter = Meter(on_progress, reading.total_bytes)
    meta: dict[str, Any] = {}
    counts = {"rows": 0, "rows_failed": 0, "rows_truncated": 0}

    def write(answered: Answered) -> None:
        if not meta:
            meta.update(describe(engine, job, *shape_and_dtype(answered.columns)))
        sys.stdout.buffer.write(lines.encode(answered) or b"")
        sys.stdout.buffer.flush()
        counts["rows"] += len(answered.rows)
        counts["rows_truncated"] += answered.num_truncated

    _compute(engine, job, reading.parts(Begun()), meter, write, strict=True)
    if not job.params.truncate:
        del counts["rows_truncated"]
    return _result(job, {**meta, **counts}, 0, meter)


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


def _compute(
    engine: Engine,
    job: BulkJob,
    parts: Iterator[Part],
    meter: Meter,
    take: Callable[[Answered], object],
    *,
    strict: bool = False,
    earlier: Earlier | None = None,
) -> None:
    """Compute parts and hand their answers to ``take``, in order, on a thread of its own.

    What is computed when the inputs fail is handed over before the error is raised.
    """
    strict = strict or job.settings.strict
    asked = Asked(job.task, job.params, job.settings.dedupe)
    running: deque[tuple[Part, Running]] = deque()
    writer = Behind(take)

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
                    if strict and found.failures:
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
        writer.close()
