"""What a row of each task says: the columns of an answer, for JSON lines and for arrays.

Results of the engine go in, named columns come out. Knows nothing about files; tables are made of
these columns in ``arrow.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from poolc.runtime.heads import Result
from poolc.runtime.outputs import Classification, Ragged, Span
from poolc.runtime.request import Params
from poolc.runtime.sparse import SparseVectors
from poolc.spec import ModelSpec, Task

Values = npt.NDArray[Any] | Ragged | SparseVectors | list[Any]  # labels, or lists of spans

_NAMES = {
    Task.EMBED: "embedding",
    Task.EMBED_SPARSE: "embedding",
    Task.EMBED_TOKENS: "embedding",
    Task.SCORE: "score",
    Task.REWARD: "reward",
    Task.ENCODE: "token_embeddings",
}


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """One value a row. ``names``: what the numbers of a row are called, where they have names."""

    name: str
    values: Values
    names: tuple[str, ...] = ()

    def taken(self, rows: Sequence[int]) -> Column:
        """Return the values of these rows, which may repeat."""
        return Column(self.name, _taken(self.values, rows), self.names)


def columns_of(
    spec: ModelSpec, task: Task, params: Params, results: Sequence[Result]
) -> list[Column]:
    """Return the answers of a part, given the results of its pieces in order."""
    joined = _joined(results)
    if isinstance(joined, Classification):
        named = joined.names if len(set(joined.names)) == len(joined.names) else ()
        values = Column(class_values(spec, params), joined.probs, named)
        return [Column("label", joined.labels), values]
    if task is Task.CLASSIFY_TOKENS:
        spans = isinstance(joined, list)
        return [Column("spans" if spans else class_values(spec, params), joined)]
    return [Column(_NAMES[task], joined)]


def array_columns(
    spec: ModelSpec, task: Task, params: Params, values: npt.NDArray[Any]
) -> list[Column]:
    """Return the answers that ``columns_of`` makes, given the numbers of rows alone: [n, ...]."""
    if task is not Task.CLASSIFY:
        return columns_of(spec, task, params, [values])
    labels: list[str | None] = [spec.labels[best] for best in values.argmax(axis=1)]
    return columns_of(spec, task, params, [Classification(labels, values, spec.labels)])


def class_values(spec: ModelSpec, params: Params) -> str:
    """Return what the numbers of labels are: probs or logits."""
    asked = params.use_activation
    return "probs" if (spec.use_activation if asked is None else asked) else "logits"


def array_of(columns: Sequence[Column]) -> npt.NDArray[Any]:
    """Return the column that an array file holds: [n] or [n, d]. The last is the numbers."""
    values = columns[-1].values
    if not isinstance(values, np.ndarray):
        raise TypeError(f"{columns[-1].name} has rows of different length; this is a bug in poolc")
    return values


def is_array(columns: Sequence[Column]) -> bool:
    """Return whether rows have one shape."""
    return isinstance(columns[-1].values, np.ndarray)


def shape_and_dtype(columns: Sequence[Column]) -> tuple[list[int | None], str]:
    """Return the shape of a row, None for a size that differs, and the dtype of its numbers."""
    values = columns[-1].values
    if isinstance(values, np.ndarray):
        return list(values.shape[1:]), str(values.dtype)
    if isinstance(values, Ragged):
        return [None, *values.values.shape[1:]], str(values.values.dtype)
    return [None], "float32"


def json_fields(columns: Sequence[Column]) -> Iterator[dict[str, Any]]:
    """Yield what a JSON line says of each row, in order."""
    shown = [_shown(column) for column in columns]
    names = [column.name for column in columns]
    for values in zip(*shown, strict=True):
        yield dict(zip(names, values, strict=True))


def _shown(column: Column) -> Iterator[Any]:
    values = column.values
    if isinstance(values, SparseVectors):
        for vector in values:
            tokens = vector.tokens()
            yield {"indices": vector.indices, "values": vector.values, "tokens": tokens}
    elif isinstance(values, np.ndarray) and column.names:
        yield from (dict(zip(column.names, row, strict=True)) for row in values)
    elif isinstance(values, list):
        for row in values:
            yield [shown_span(span) for span in row] if isinstance(row, list) else row
    else:
        yield from values


def shown_span(span: Span) -> dict[str, Any]:
    """Return a labelled stretch of a text as a JSON line says it."""
    return {
        "label": span.entity_group,
        "score": span.score,
        "word": span.word,
        "start": span.start,
        "end": span.end,
    }


def _joined(results: Sequence[Any]) -> Any:
    """Return the results of consecutive rows as one."""
    first = results[0]
    if len(results) == 1:
        return first
    for kind, join in _JOINS.items():
        if isinstance(first, kind):
            return join(results)
    raise TypeError(f"rows of {type(first).__name__} have no columns; this is a bug in poolc")


def _join_classes(results: Sequence[Any]) -> Classification:
    labels = [label for result in results for label in result.labels]
    return Classification(labels, np.concatenate([r.probs for r in results]), results[0].names)


def _join_ragged(results: Sequence[Any]) -> Ragged:
    sizes = np.concatenate([np.diff(result.offsets) for result in results])
    offsets = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
    return Ragged(np.concatenate([result.values for result in results]), offsets)


def _join_sparse(results: Sequence[Any]) -> SparseVectors:
    rows = [row for result in results for row in result]
    return SparseVectors.from_rows(rows, results[0].shape[1])


_JOINS: Mapping[type, Callable[[Sequence[Any]], Any]] = {
    np.ndarray: np.concatenate,
    Classification: _join_classes,
    Ragged: _join_ragged,
    SparseVectors: _join_sparse,
    list: lambda results: [row for result in results for row in result],
}


def _taken(values: Any, rows: Sequence[int]) -> Any:
    if isinstance(values, np.ndarray):
        return values[np.asarray(rows, np.int64)]
    if isinstance(values, SparseVectors):
        return SparseVectors.from_rows([values[row] for row in rows], values.shape[1])
    if isinstance(values, Ragged):
        return Ragged.from_rows([values[row] for row in rows])
    return [values[row] for row in rows]
