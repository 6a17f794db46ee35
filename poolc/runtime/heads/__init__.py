"""Rows of a graph -> the result of a task: what a request still decides after the model has run.

Truncation, normalising, activation, label choice and comparison; one file a kind of result. No
sessions, no tokenizers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from poolc.errors import InvalidOption
from poolc.runtime.heads.classes import classification, label_index, label_scores, rewards
from poolc.runtime.heads.embeddings import check_embedding_size, embeddings, similarities
from poolc.runtime.heads.tokens import check_token_params, token_classes, token_rewards
from poolc.runtime.outputs import Classification, Ragged, Span, check_dtype
from poolc.runtime.request import Params, Prepared, Row
from poolc.spec import TOKEN_EMBEDDINGS, Kind, ModelSpec, Similarity, Task

_SWITCHES = ("normalize", "truncate", "use_activation", "add_special_tokens", "chunk")

Result = npt.NDArray[Any] | Classification | Ragged | list[list[Span]]


def check_params(spec: ModelSpec, task: Task, params: Params) -> None:
    """Refuse parameters that the model or task does not have, before any work.

    Raises InvalidDimensions or InvalidOption.
    """
    _check_types(params)
    if params.dimensions is not None:
        check_embedding_size(spec, task, params.dimensions)
    size = params.dimensions or spec.default_dimensions or spec.embedding_size
    check_dtype(params.output_dtype, size if task is Task.EMBED else None)
    check_token_params(spec, task, params)
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


def finish(spec: ModelSpec, prepared: Prepared, rows: Sequence[Row]) -> Result:
    """Turn the rows of a request's sequences, in order, into the task's result."""
    task, params = prepared.task, prepared.params
    if task is Task.EMBED:
        return embeddings(spec, params, rows)
    if task is Task.CLASSIFY:
        return classification(spec, params, rows)
    if task is Task.SCORE and spec.kind is Kind.CLASSIFIER:
        return label_scores(spec, params, rows)
    if task is Task.SCORE:
        return similarities(spec, prepared, rows)
    if task is Task.REWARD and spec.kind is Kind.CLASSIFIER:
        return rewards(params, rows)
    if task is Task.CLASSIFY_TOKENS:
        return token_classes(spec, prepared, rows)
    if task is Task.REWARD and spec.labels:
        return token_rewards(spec, prepared, rows)
    if task is Task.REWARD and prepared.params.step_tag_id is not None:
        return Ragged.from_rows(
            [
                row[TOKEN_EMBEDDINGS][sequence.ids == prepared.params.step_tag_id]
                for row, sequence in zip(rows, prepared.sequences, strict=True)
            ]
        )
    return Ragged.from_rows([row[TOKEN_EMBEDDINGS] for row in rows])
