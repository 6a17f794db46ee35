"""Rows of a graph -> the result of a task: what a request still decides after the model has run.

Truncation, normalising, activation, label choice and comparison. No sessions, no tokenizers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from poolc.errors import InvalidDimensions, InvalidOption
from poolc.runtime.matryoshka import check_dimensions
from poolc.runtime.outputs import (
    Classification,
    Float32,
    Ragged,
    check_dtype,
    convert_dtype,
    l2_normalize,
    similarity,
)
from poolc.runtime.request import Params, Prepared, Row
from poolc.spec import (
    LOGITS,
    POOLED,
    PROBS,
    SENTENCE_EMBEDDING,
    TOKEN_EMBEDDINGS,
    ModelSpec,
    Similarity,
    Task,
)

_SWITCHES = ("normalize", "truncate", "use_activation", "add_special_tokens")

Result = npt.NDArray[Any] | Classification | Ragged


def check_params(spec: ModelSpec, task: Task, params: Params) -> None:
    """Refuse parameters that the model or task does not have, before any work.

    Raises InvalidDimensions or InvalidOption.
    """
    _check_types(params)
    if params.dimensions is not None:
        _check_dimensions(spec, task, params.dimensions)
    size = params.dimensions or spec.default_dimensions or spec.embedding_size
    check_dtype(params.output_dtype, size if task is Task.EMBED else None)
    if task is Task.SCORE and spec.labels:
        label_index(spec, params.label)
    elif task is Task.SCORE and params.label is not None:
        raise InvalidOption(
            "label chooses what a score is where the model has several; this model has none, "
            "so leave it out",
            param="label",
        )


def _check_types(params: Params) -> None:
    for name in _SWITCHES:
        value = getattr(params, name)
        if not isinstance(value, bool | None):
            raise InvalidOption(f"{name} is {value!r}; allowed: True, False, None", param=name)
    if not isinstance(params.similarity, Similarity | None):
        raise InvalidOption(
            f"similarity is {params.similarity!r}; allowed: a poolc.spec.Similarity or None",
            param="similarity",
        )


def _check_dimensions(spec: ModelSpec, task: Task, dimensions: object) -> None:
    if task not in (Task.EMBED, Task.SCORE) or spec.embedding_size is None:
        raise InvalidDimensions(f"dimensions applies to embed, not to {task}", param="dimensions")
    check_dimensions(spec.matryoshka, spec.embedding_size, dimensions)


def finish(spec: ModelSpec, prepared: Prepared, rows: Sequence[Row]) -> Result:
    """Turn the rows of a request's sequences, in order, into the task's result."""
    task, params = prepared.task, prepared.params
    if task is Task.EMBED:
        return embeddings(spec, params, rows)
    if task is Task.CLASSIFY:
        return classification(spec, params, rows)
    if task is Task.SCORE:
        return scores(spec, prepared, rows)
    if task is Task.REWARD and spec.labels:
        return class_rows(params, rows, default=False)[:, 0].copy()
    return Ragged.from_rows([row[TOKEN_EMBEDDINGS] for row in rows])


def embeddings(spec: ModelSpec, params: Params, rows: Sequence[Row]) -> npt.NDArray[Any]:
    """Return vectors [n, dim]: truncated, then normalised, then converted."""
    normalize = spec.normalize if params.normalize is None else params.normalize
    # int8 counts 127ths of a unit vector: any other length would overflow or waste the range.
    normalize = normalize or params.output_dtype in ("int8", "uint8")
    dimensions = params.dimensions or spec.default_dimensions
    if dimensions is None and normalize and spec.normalize:
        vectors = np.stack([row[SENTENCE_EMBEDDING] for row in rows])
    else:
        vectors = np.stack([row[POOLED][:dimensions] for row in rows])
        vectors = l2_normalize(vectors) if normalize else vectors
    return convert_dtype(vectors, params.output_dtype)


def class_rows(params: Params, rows: Sequence[Row], *, default: bool) -> Float32:
    """Return probabilities or logits [n, labels]; ``default`` where the request does not say."""
    activated = default if params.use_activation is None else params.use_activation
    return np.stack([row[PROBS if activated else LOGITS] for row in rows])


def classification(spec: ModelSpec, params: Params, rows: Sequence[Row]) -> Classification:
    """Return the best label and all probabilities of each text."""
    values = class_rows(params, rows, default=spec.use_activation)
    best = values.argmax(axis=1)
    return Classification([spec.labels[i] for i in best], values, spec.labels)


def scores(spec: ModelSpec, prepared: Prepared, rows: Sequence[Row]) -> Float32:
    """Return one score a pair [n]: a label's value, or the similarity of two vectors."""
    params = prepared.params
    if spec.labels:
        column = label_index(spec, params.label)
        return class_rows(params, rows, default=spec.use_activation)[:, column].copy()
    vectors = embeddings(spec, Params(dimensions=params.dimensions), rows)
    pairs = prepared.pairs
    if pairs is None:
        raise ValueError("a score by similarity needs pairs; this is a bug in poolc")
    return similarity(
        vectors[pairs[:, 0]], vectors[pairs[:, 1]], params.similarity or spec.similarity
    )


def label_index(spec: ModelSpec, label: str | int | None) -> int:
    """Return the column that a score is.

    Raises InvalidOption where the model has several labels and none was named, or not this one.
    """
    if label is None and len(spec.labels) == 1:
        return 0
    if isinstance(label, str) and label in spec.labels:
        return spec.labels.index(label)
    if isinstance(label, int) and not isinstance(label, bool) and 0 <= label < len(spec.labels):
        return label
    named = "no label was given" if label is None else f"label is {label!r}"
    raise InvalidOption(
        f"{named}; this model scores by one of: {', '.join(spec.labels)}", param="label"
    )
