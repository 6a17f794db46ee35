"""Bulk jobs from Python: ``poolc.bulk.embed("minilm", "docs/*.parquet", "vectors.parquet")``.

What the commands ``poolc embed|classify|score|reward|encode`` do, as functions of the same names.
Knows how keywords become a job; the work is ``poolc/runtime/bulk``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from poolc import api
from poolc.errors import InputError, InvalidOption, nearest
from poolc.runtime.bulk import (
    BulkJob,
    BulkProgress,
    BulkResult,
    Columns,
    Settings,
    job_for_model,
)
from poolc.runtime.bulk import run as run_job
from poolc.runtime.engine import Engine
from poolc.runtime.memory import parse_bytes
from poolc.runtime.request import Params
from poolc.spec import Task

__all__ = [
    "BulkJob",
    "BulkProgress",
    "BulkResult",
    "Columns",
    "Settings",
    "classify",
    "embed",
    "encode",
    "meta",
    "reward",
    "run",
    "score",
]

Inputs = str | Path | Sequence[str | Path]
OnProgress = Callable[[BulkProgress], None]

# Keywords by what they are fields of; the columns are called as the command line calls them.
_COLUMNS = {
    "text_column": "text",
    "left_column": "left",
    "right_column": "right",
    "id_column": "id",
    "keep": "keep",
}
_SETTINGS = tuple(f.name for f in fields(Settings))
_LOADING = ("memory_limit", "device")
_PARAMS = tuple(f.name for f in fields(Params))


def embed(
    model: str | Path | Engine, inputs: Inputs, output: str | Path, **options: Any
) -> BulkResult:
    """Embed every text of the inputs, to whatever the model embeds to.

    ``inputs`` are files, folders, globs, addresses (s3://...) or "-"; ``output`` is a file
    (.parquet, .arrow, .jsonl, .npy), a name that ends with / for a folder of parts, an address, or
    "-". ``options`` are fields of ``Params`` (dimensions, truncate, ...) and of ``Settings``
    (append, strict, part_rows, ...), text_column, left_column, right_column, id_column and keep
    ("all" or names), and on_progress.

    A job that was cut short goes on where it was. Raises InvalidOption and InputError for options
    and files that cannot be used, and what ``poolc.load`` raises.
    """
    return _start(Task.EMBED, model, inputs, output, options)


def classify(
    model: str | Path | Engine, inputs: Inputs, output: str | Path, **options: Any
) -> BulkResult:
    """Classify every text, or pair of texts where left_column and right_column are given."""
    return _start(Task.CLASSIFY, model, inputs, output, options)


def score(
    model: str | Path | Engine, inputs: Inputs, output: str | Path, **options: Any
) -> BulkResult:
    """Score every pair of texts of the inputs; options as ``embed``."""
    return _start(Task.SCORE, model, inputs, output, options)


def reward(
    model: str | Path | Engine, inputs: Inputs, output: str | Path, **options: Any
) -> BulkResult:
    """Reward every text, its tokens or its steps, as the model does; options as ``embed``."""
    return _start(Task.REWARD, model, inputs, output, options)


def encode(
    model: str | Path | Engine, inputs: Inputs, output: str | Path, **options: Any
) -> BulkResult:
    """Write the last hidden states of every text, one row a token; options as ``embed``."""
    return _start(Task.ENCODE, model, inputs, output, options)


def meta(output: str | Path) -> dict[str, Any]:
    """Return what an output of a job says of itself: ``space_id``, dimensions, prompt, options.

    So that a query is compared with vectors of its own space only. Raises InputError where there is
    no output, or one that a job did not write.
    """
    from poolc.runtime.bulk.destination import destination
    from poolc.runtime.bulk.formats import TABLES, output_format
    from poolc.runtime.bulk.table_outputs import meta_in

    place = destination(str(output))
    if place.of_parts:
        found = place.meta()
    elif (kind := output_format(place.name)) in TABLES:
        with place.open_base() as file:
            found = meta_in(kind, file)
    else:
        found = place.meta()
    if found is None:
        raise InputError(
            f"{output} does not say how its rows were made: it is not there, or not an output of a "
            "bulk job",
            param="output",
        )
    return found


def run(
    model: str | Path | Engine,
    job: BulkJob,
    *,
    on_progress: OnProgress | None = None,
    on_event: api.OnEvent | None = None,
    **options: Any,
) -> BulkResult:
    """Run a job on a loaded model, or on one that is loaded (compiled, at first) for it.

    ``options`` are those of ``poolc.load``; its memory limit also bounds the parts of the job.
    """
    if isinstance(model, Engine):
        if options:
            raise InvalidOption(f"{', '.join(options)} cannot change a model that is loaded")
        return run_job(model, job_for_model(model, job), on_progress)
    job = limited(job, options.get("memory_limit"))
    engine = api.load(model, on_event=on_event, **options)
    try:
        return run_job(engine, job_for_model(engine, job), on_progress)
    finally:
        engine.close()


def _start(
    task: Task, model: str | Path | Engine, inputs: Inputs, output: str | Path, options: Any
) -> BulkResult:
    on_progress = options.pop("on_progress", None)
    loading = {n: options.pop(n) for n in _LOADING if n in options}
    job = job_of(task, inputs, output, options)
    return run(model, job, on_progress=on_progress, **loading)


def limited(job: BulkJob, memory_limit: int | str | None) -> BulkJob:
    """Return a job whose parts are bounded by a model's memory limit. Raises InvalidOption."""
    limit = parse_bytes(memory_limit, "memory_limit")
    if limit is None:
        return job
    return replace(job, settings=replace(job.settings, memory_limit=limit))


def job_of(
    task: Task, inputs: Inputs, output: str | Path, options: dict[str, Any], *others: str
) -> BulkJob:
    """Return the job that keywords describe. ``others`` are keywords that were taken before.

    Raises InvalidOption for one that is unknown, with the nearest name.
    """
    known = (*_COLUMNS, *_PARAMS, *_SETTINGS, *_LOADING, "on_progress", *others)
    for name in options:
        if name not in known:
            raise InvalidOption(f"there is no option {name!r}; {nearest(name, known)}", param=name)
    keep = options.get("keep")
    if isinstance(keep, str):
        options["keep"] = (keep,)
    elif keep is not None:
        options["keep"] = tuple(keep)
    columns = Columns(**{_COLUMNS[n]: v for n, v in options.items() if n in _COLUMNS})
    params = Params(**{n: v for n, v in options.items() if n in _PARAMS})
    settings = Settings(**{n: v for n, v in options.items() if n in _SETTINGS})
    chosen = (inputs,) if isinstance(inputs, (str, Path)) else tuple(inputs)
    return BulkJob(task, chosen, str(output), columns, params, settings)
