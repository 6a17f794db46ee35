"""What a job is: inputs, task, output and how it runs; and what can be refused before any model.

Data only, and checks on names and options; ``run.py`` does the work.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from poolc.errors import InvalidOption
from poolc.runtime.bulk.columns import Columns
from poolc.runtime.bulk.destination import STDOUT, destination, is_folder
from poolc.runtime.bulk.formats import (
    OUTPUTS,
    TABLES,
    Format,
    import_arrow,
    named_format,
    output_format,
)
from poolc.runtime.bulk.inputs import Source, expand
from poolc.runtime.bulk.parts import PART_ROWS
from poolc.runtime.bulk.records import check_inputs
from poolc.runtime.engine import Engine
from poolc.runtime.heads import check_params
from poolc.runtime.request import Params
from poolc.spec import Kind, Task


@dataclass(frozen=True, slots=True)
class Settings:
    """How a job runs. ``memory_limit`` is in bytes; formats are values of ``Format``.

    ``part_rows``: rows that are sorted, computed and committed together. ``dedupe``: compute equal
    texts once (where rows differ in length, once a part). ``strict``: the first row that cannot be
    processed stops the job. ``append``: add to the output that is there. ``restart``: forget an
    unfinished job.
    """

    input_format: str | None = None
    output_format: str | None = None
    part_rows: int = PART_ROWS
    dedupe: bool = False
    strict: bool = False
    append: bool = False
    allow_precision_mix: bool = False
    restart: bool = False
    allow_different_host: bool = False
    memory_limit: int | None = None


@dataclass(frozen=True, slots=True)
class BulkJob:
    """What to read, what to do with it, and where it goes.

    ``inputs`` are files, folders, globs, addresses, or "-" for standard input; ``output`` is a
    file, a folder (a name that ends with /), an address, or "-" for standard output.
    """

    task: Task
    inputs: tuple[str | Path, ...]
    output: str
    columns: Columns = field(default_factory=Columns)
    params: Params = field(default_factory=Params)
    settings: Settings = field(default_factory=Settings)

    @property
    def of_pairs(self) -> bool:
        """Whether items are pairs: always of scores, of labels where columns name two texts."""
        return self.task is Task.SCORE or self.columns.left is not None

    @property
    def lends(self) -> bool:
        """Whether parts take the answers of texts that earlier ones have: those of one shape."""
        return self.settings.dedupe and self.task in _OF_ONE_SHAPE and self.output != STDOUT

    @property
    def format(self) -> Format:
        """The format of the output. Raises InvalidOption for none that is known."""
        named = self.settings.output_format
        if named is not None:
            return named_format(named, OUTPUTS, "output_format")
        if self.output == STDOUT:
            return Format.JSONL
        if is_folder(self.output):
            return Format.PARQUET
        return output_format(self.output.partition("?")[0])


@dataclass(frozen=True, slots=True)
class BulkResult:
    """What a job wrote; ``meta`` is what the output says of itself.

    ``num_resumed`` rows were there already, from a run that was cut short; ``num_tokens`` and
    ``num_computed`` (with padding) are those of all rows that were computed for this output.
    """

    num_rows: int
    output: str
    meta: Mapping[str, Any]
    num_failed: int = 0
    errors: str | None = None
    num_truncated: int = 0
    num_resumed: int = 0
    num_tokens: int = 0
    num_computed: int = 0
    seconds: float = 0.0


TASKS = (
    Task.EMBED,
    Task.EMBED_SPARSE,
    Task.EMBED_TOKENS,
    Task.CLASSIFY,
    Task.CLASSIFY_TOKENS,
    Task.SCORE,
    Task.REWARD,
    Task.ENCODE,
)
_OF_ONE_SHAPE = (Task.EMBED, Task.CLASSIFY, Task.SCORE)
_RAGGED = (Task.EMBED_SPARSE, Task.EMBED_TOKENS, Task.CLASSIFY_TOKENS, Task.ENCODE)
_EMBED_RAGGED = (Task.EMBED_SPARSE, Task.EMBED_TOKENS)
_AGGREGATION = "simple"


def check(job: BulkJob) -> list[Source]:
    """Refuse what can be refused before a model is loaded; return the files that will be read.

    Raises InputError for files that cannot be used, InvalidOption for formats and options,
    MissingDependency where one of them needs a package.
    """
    if job.task not in TASKS:
        raise InvalidOption(f"there are no jobs of {job.task}; allowed: {', '.join(TASKS)}")
    if job.settings.part_rows < 1:
        raise InvalidOption(
            f"part_rows is {job.settings.part_rows}; allowed: 1 or more", param="part_rows"
        )
    if job.output == STDOUT and sys.stdout is None:
        raise InvalidOption("standard output (-) is closed: name a file", param="output")
    _check_output(job, job.task in _RAGGED)
    sources = expand(job.inputs, job.settings.input_format)
    check_inputs(sources, job.columns, pairs=job.of_pairs)
    if any(source.format in TABLES for source in sources):
        import_arrow("", "reading Parquet and Arrow")
    if job.output != STDOUT:
        destination(job.output).check(sources)
    return sources


def _check_output(job: BulkJob, ragged: bool) -> None:
    kind = job.format
    if job.output == STDOUT and kind is not Format.JSONL:
        raise InvalidOption(f"standard output takes JSON lines, not {kind}", param="output")
    if job.output == STDOUT and job.settings.append:
        raise InvalidOption("nothing can be appended to standard output", param="append")
    if kind is Format.NPY and ragged:
        raise InvalidOption(
            f"the output {job.output} holds one array, but rows of {job.task} differ in length: "
            "write JSON lines (.jsonl) or Parquet",
            param="output",
        )
    if kind is Format.NPY and is_folder(job.output):
        raise InvalidOption(
            "parts of a folder are Parquet, Arrow or JSON lines; an array is one file (.npy)",
            param="output_format",
        )
    if kind is Format.NPY and job.columns.keep:
        raise InvalidOption(
            "an array has no columns beside it: keep them in Parquet or JSON lines", param="keep"
        )
    if kind in TABLES:
        import_arrow("", f"writing {job.output}")


def check_engine(engine: Engine, job: BulkJob) -> None:
    """Refuse what this model does not do, or this output cannot hold of it.

    Raises UnsupportedTask, InvalidOption and InvalidDimensions.
    """
    engine.require(job.task)
    check_params(engine.spec, job.task, job.params)
    _check_output(job, job.task is Task.REWARD and engine.spec.kind is Kind.REWARD)


def job_for_model(engine: Engine, job: BulkJob) -> BulkJob:
    """Return a job of Task.EMBED as one of what the model embeds to, and one of Task.CLASSIFY as
    one of the labels of tokens, spans if nothing was said, where the model does only those."""
    tasks = engine.spec.tasks
    if job.task in tasks:
        return job
    if job.task is Task.EMBED:
        return replace(job, task=next((task for task in _EMBED_RAGGED if task in tasks), job.task))
    if job.task is Task.CLASSIFY and Task.CLASSIFY_TOKENS in tasks:
        params = replace(job.params, aggregation=job.params.aggregation or _AGGREGATION)
        return replace(job, task=Task.CLASSIFY_TOKENS, params=params)
    return job
