"""One job: records stream through the engine into a sink, in order, a few windows at a time.

Knows what a row of each task says; knows nothing about file formats.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from poolc.errors import InputError, InvalidOption, InvalidText
from poolc.model_cache.serde import to_plain
from poolc.runtime.bulk.records import Columns, Record, check_inputs, read_records
from poolc.runtime.bulk.sinks import check_output, open_sink
from poolc.runtime.engine import Engine
from poolc.runtime.outputs import OutputDtype
from poolc.runtime.prompts import resolve_prompt
from poolc.runtime.request import Params
from poolc.spec import Task


@dataclass(frozen=True, slots=True)
class BulkJob:
    """What to read, what to do with it, and where it goes; ``output`` "-" is standard output."""

    task: Task
    inputs: tuple[Path, ...]
    output: str
    columns: Columns = field(default_factory=Columns)
    params: Params = field(default_factory=Params)


@dataclass(frozen=True, slots=True)
class BulkProgress:
    """How far a job is; bytes are those of the inputs."""

    num_rows: int
    done_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class BulkResult:
    """What a job wrote; ``meta`` is also the output's ``.meta.json``."""

    num_rows: int
    output: str
    meta: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Row:
    """One answer: ``values`` for an array, ``fields`` for a JSON line."""

    values: npt.NDArray[Any]
    fields: dict[str, Any]


def check(job: BulkJob) -> int:
    """Refuse what can be refused before a model is loaded; return the bytes of the inputs.

    Raises InputError for files that cannot be used and InvalidOption for formats and options.
    """
    if job.task not in _ROWS:
        raise InvalidOption(f"there are no jobs of {job.task}; allowed: {', '.join(_ROWS)}")
    check_output(job.output, job.inputs)
    return check_inputs(job.inputs, job.columns, pairs=job.task is Task.SCORE)


def run(
    engine: Engine, job: BulkJob, on_progress: Callable[[BulkProgress], None] | None = None
) -> BulkResult:
    """Run a job; the output appears when all of it is on disk, or not at all.

    Memory does not grow with the inputs. Raises UnsupportedTask and what the engine raises, with
    file and line in the message; InputError and InvalidOption for files that cannot be used.
    """
    total_bytes = check(job)
    engine.require(job.task)
    meta: dict[str, Any] = {}
    with open_sink(job.output) as sink:
        done_bytes = 0
        for record, row in _answers(engine, job):
            sink.write(row.values, _fields(sink.num_rows, record, row.fields))
            done_bytes += record.num_bytes
            if on_progress is not None:
                on_progress(BulkProgress(sink.num_rows, done_bytes, total_bytes))
            if sink.num_rows == 1:
                meta = _describe(engine, job, row.values)
        if sink.num_rows == 0:
            raise InvalidText(f"no texts in {', '.join(map(str, job.inputs))}", param="inputs")
        meta["rows"] = sink.num_rows
        sink.publish(meta)
        return BulkResult(sink.num_rows, job.output, meta)


def _answers(engine: Engine, job: BulkJob) -> Iterator[tuple[Record, _Row]]:
    pending: deque[Record] = deque()  # read but not answered: at most what the engine reads ahead

    def items() -> Iterator[Any]:
        for record in read_records(job.inputs, job.columns, pairs=job.task is Task.SCORE):
            pending.append(record)
            yield record.item

    num_done = 0
    try:
        for row in _ROWS[job.task](engine, job.params, items()):
            num_done += 1
            yield pending.popleft(), row
    except InputError as error:
        position = -1 if error.index is None else error.index - num_done
        if not 0 <= position < len(pending):
            raise
        message = f"{pending[position].place}: {error}"
        raise type(error)(message, index=error.index, param=error.param) from error


def _embeddings(engine: Engine, params: Params, items: Iterable[Any]) -> Iterator[_Row]:
    vectors = engine.embed_iter(
        items,
        dimensions=params.dimensions,
        normalize=params.normalize,
        prompt_name=params.prompt_name,
        prompt=params.prompt,
        truncate=params.truncate,
        output_dtype=cast("OutputDtype", params.output_dtype),
    )
    return (_Row(vector, {"embedding": vector}) for vector in vectors)


def _classes(engine: Engine, params: Params, items: Iterable[Any]) -> Iterator[_Row]:
    names, kind = engine.spec.labels, _class_values(engine, params)
    named = len(set(names)) == len(names)
    answers = engine.classify_iter(
        items, use_activation=params.use_activation, truncate=params.truncate
    )
    for label, values in answers:
        shown = dict(zip(names, values, strict=True)) if named else values
        yield _Row(values, {"label": label, kind: shown})


def _scores(engine: Engine, params: Params, items: Iterable[Any]) -> Iterator[_Row]:
    scores = engine.score_iter(
        items,
        label=params.label,
        use_activation=params.use_activation,
        truncate=params.truncate,
        dimensions=params.dimensions,
        instruction=params.instruction,
        template=params.template,
        max_query_length=params.max_query_length,
        max_document_length=params.max_document_length,
    )
    for score in scores:
        value = np.asarray(score, np.float32)
        yield _Row(value, {"score": value[()]})


_ROWS: Mapping[Task, Callable[[Engine, Params, Iterable[Any]], Iterator[_Row]]] = {
    Task.EMBED: _embeddings,
    Task.CLASSIFY: _classes,
    Task.SCORE: _scores,
}


def _class_values(engine: Engine, params: Params) -> str:
    asked = params.use_activation
    return "probs" if (engine.spec.use_activation if asked is None else asked) else "logits"


def _fields(index: int, record: Record, answer: Mapping[str, Any]) -> dict[str, Any]:
    own = {} if record.id is None else {"id": record.id}
    return {"index": index, **own, **answer}


def _describe(engine: Engine, job: BulkJob, values: npt.NDArray[Any]) -> dict[str, Any]:
    """Return what a reader of the rows must know: their space, and how they were made."""
    manifest = engine.artifact.manifest
    usual = to_plain(Params())
    asked = {name: v for name, v in to_plain(job.params).items() if v != usual[name]}
    meta = {
        "task": job.task.value,
        "model": {"id": manifest.source.id, "revision": manifest.source.revision},
        "artifact_id": engine.artifact.artifact_id,
        "space_id": engine.artifact.space_id,
        "target": manifest.target.value,
        "precision": manifest.precision.value,
        "row_shape": list(values.shape),
        "dtype": str(values.dtype),
        "params": asked,
        "inputs": [str(path) for path in job.inputs],
    }
    if job.task is Task.EMBED:
        meta["prompt"] = resolve_prompt(engine.spec, job.params)
    if job.task is Task.CLASSIFY:
        meta |= {"labels": list(engine.spec.labels), "values": _class_values(engine, job.params)}
    return meta
