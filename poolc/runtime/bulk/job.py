"""One job: records stream through the engine into a sink, in order, a few windows at a time.

Knows what a row of each task says; knows nothing about file formats.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from poolc.errors import InputError, InvalidOption, InvalidText
from poolc.model_cache.serde import to_plain
from poolc.runtime.bulk.records import Columns, Record, check_inputs, read_records
from poolc.runtime.bulk.sinks import NPY_SUFFIX, check_output, open_sink
from poolc.runtime.engine import Engine
from poolc.runtime.heads import check_params
from poolc.runtime.outputs import Span
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
    if job.task in _RAGGED and Path(job.output).suffix.lower() == NPY_SUFFIX:
        raise InvalidOption(
            f"the output {job.output} holds one array, but rows of {job.task} differ in length: "
            "write JSON lines (.jsonl)",
            param="output",
        )
    return check_inputs(job.inputs, job.columns, pairs=_of_pairs(job))


def run(
    engine: Engine, job: BulkJob, on_progress: Callable[[BulkProgress], None] | None = None
) -> BulkResult:
    """Run a job; the output appears when all of it is on disk, or not at all.

    Memory does not grow with the inputs. Raises UnsupportedTask and what the engine raises, with
    file and line in the message; InputError and InvalidOption for files that cannot be used.
    """
    total_bytes = check(job)
    engine.require(job.task)
    check_params(engine.spec, job.task, job.params)
    meta: dict[str, Any] = {}
    with open_sink(job.output) as sink:
        done_bytes = num_truncated = 0
        for record, row in _answers(engine, job):
            sink.write(row.values, _fields(sink.num_rows, record, row.fields))
            num_truncated += row.fields.get("truncated", False)
            done_bytes += record.num_bytes
            if on_progress is not None:
                on_progress(BulkProgress(sink.num_rows, done_bytes, total_bytes))
            if sink.num_rows == 1:
                meta = _describe(engine, job, row.values)
        if sink.num_rows == 0:
            raise InvalidText(f"no texts in {', '.join(map(str, job.inputs))}", param="inputs")
        meta["rows"] = sink.num_rows
        if job.params.truncate:
            meta["rows_truncated"] = num_truncated
        sink.publish(meta)
        return BulkResult(sink.num_rows, job.output, meta)


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


def _of_pairs(job: BulkJob) -> bool:
    """Return whether items are pairs: always of scores, of labels where columns name two texts."""
    return job.task is Task.SCORE or job.columns.left is not None


def _answers(engine: Engine, job: BulkJob) -> Iterator[tuple[Record, _Row]]:
    pending: deque[Record] = deque()  # read but not answered: at most what the engine reads ahead

    def items() -> Iterator[Any]:
        for record in read_records(job.inputs, job.columns, pairs=_of_pairs(job)):
            pending.append(record)
            yield record.item

    num_done = 0
    truncated: list[bool] = []  # of the rows that are finished and not yet taken
    parts = engine.stream(job.task, items(), job.params, truncated)
    try:
        for row in _ROWS[job.task](engine, job.params, parts):
            num_done += 1
            was_cut = truncated.pop(0)
            if job.params.truncate:
                row.fields["truncated"] = was_cut
            yield pending.popleft(), row
    except InputError as error:
        position = -1 if error.index is None else error.index - num_done
        if not 0 <= position < len(pending):
            raise
        message = f"{pending[position].place}: {error}"
        raise type(error)(message, index=error.index, param=error.param) from error


def _embeddings(engine: Engine, params: Params, parts: Iterable[Any]) -> Iterator[_Row]:
    for vectors in parts:
        for vector in vectors:
            yield _Row(vector, {"embedding": vector})


def _sparse_vectors(engine: Engine, params: Params, parts: Iterable[Any]) -> Iterator[_Row]:
    for vectors in parts:
        for vector in vectors:
            tokens = vector.tokens()
            shown = {"indices": vector.indices, "values": vector.values, "tokens": tokens}
            yield _Row(vector.values, {"embedding": shown})


def _classes(engine: Engine, params: Params, parts: Iterable[Any]) -> Iterator[_Row]:
    names, kind = engine.spec.labels, _class_values(engine, params)
    named = len(set(names)) == len(names)
    for part in parts:
        for label, values in zip(part.labels, part.probs, strict=True):
            shown = dict(zip(names, values, strict=True)) if named else values
            yield _Row(values, {"label": label, kind: shown})


def _scores(engine: Engine, params: Params, parts: Iterable[Any]) -> Iterator[_Row]:
    for scores in parts:
        for score in scores:
            value = np.asarray(score, np.float32)
            yield _Row(value, {"score": value[()]})


def _token_classes(engine: Engine, params: Params, parts: Iterable[Any]) -> Iterator[_Row]:
    kind = _class_values(engine, params)
    for part in parts:
        for row in part:
            if isinstance(row, list):
                scores = np.array([span.score for span in row], np.float32)
                yield _Row(scores, {"spans": [_shown(span) for span in row]})
            else:
                yield _Row(row, {kind: row})


def _shown(span: Span) -> dict[str, Any]:
    return {
        "label": span.entity_group,
        "score": span.score,
        "word": span.word,
        "start": span.start,
        "end": span.end,
    }


_AGGREGATION = "simple"
# Rows of different length.
_EMBED_RAGGED = (Task.EMBED_SPARSE, Task.EMBED_TOKENS)
_RAGGED = (*_EMBED_RAGGED, Task.CLASSIFY_TOKENS)
_ROWS: Mapping[Task, Callable[[Engine, Params, Iterable[Any]], Iterator[_Row]]] = {
    Task.EMBED: _embeddings,
    Task.EMBED_SPARSE: _sparse_vectors,
    Task.EMBED_TOKENS: _embeddings,
    Task.CLASSIFY: _classes,
    Task.CLASSIFY_TOKENS: _token_classes,
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
    if job.task in _RAGGED:
        meta |= {"row_shape": [None, *values.shape[1:]]}  # rows differ in length
    if job.task in (Task.EMBED, *_EMBED_RAGGED):
        meta["prompt"] = resolve_prompt(engine.spec, job.params)
    if job.task in (Task.CLASSIFY, Task.CLASSIFY_TOKENS):
        meta |= {"labels": list(engine.spec.labels), "values": _class_values(engine, job.params)}
    return meta
