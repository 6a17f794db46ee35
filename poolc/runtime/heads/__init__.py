"""Rows of a graph -> the result of a task: what a request still decides after the model has run.

Truncation, normalising, activation, label choice and comparison; one file a kind of result. No
sessions, no tokenizers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from poolc.errors import InvalidOption
from poolc.runtime.heads.allowed import check_obeyed
from poolc.runtime.heads.classes import classification, label_index, label_scores, rewards
from poolc.runtime.heads.embeddings import check_embedding_size, embeddings, merged, similarities
from poolc.runtime.heads.hidden_states import check_hidden_states, hidden_states
from poolc.runtime.heads.hybrid import HybridVectors, hybrid_vectors
from poolc.runtime.heads.sparse import (
    check_sparse_params,
    compact,
    expand,
    sparse_scores,
    sparse_vectors,
    weights_by_token,
)
from poolc.runtime.heads.token_vectors import late_interaction_scores, token_vectors
from poolc.runtime.heads.tokens import check_token_params, token_classes, token_rewards
from poolc.runtime.outputs import Classification, Ragged, Span, check_dtype
from poolc.runtime.prompts import SIDES
from poolc.runtime.request import Params, Prepared, Row
from poolc.runtime.sparse import SparseVectors, TokenName
from poolc.spec import TOKEN_EMBEDDINGS, Kind, ModelSpec, Similarity, Task

__all__ = ["Result", "check_params", "compact", "expand", "finish"]

_SWITCHES = ("normalize", "truncate", "use_activation", "add_special_tokens", "chunk")

Result = (
    npt.NDArray[Any] | Classification | Ragged | list[list[Span]] | SparseVectors | HybridVectors
)


def check_params(spec: ModelSpec, task: Task, params: Params) -> None:
    """Refuse parameters that the model or task does not have, before any work.

    Raises InvalidDimensions or InvalidOption.
    """
    _check_types(params)
    sides = SIDES if spec.router is None else sorted(spec.router.sides)
    if params.side not in (None, *sides):
        raise InvalidOption(
            f"side is {params.side!r}; allowed: {', '.join(sides)}, or None", param="side"
        )
    if params.dimensions is not None:
        check_embedding_size(spec, task, params.dimensions)
    size = params.dimensions or spec.default_dimensions or spec.embedding_size
    sized = task in (Task.EMBED, Task.EMBED_TOKENS, Task.EMBED_HYBRID)
    check_dtype(params.output_dtype, size if sized else None)
    if spec.kind is Kind.HYBRID and spec.multi_vector and task is not Task.EMBED:
        check_dtype(params.output_dtype, spec.multi_vector.dim if sized else None)
    check_sparse_params(spec, task, params)
    check_token_params(spec, task, params)
    check_obeyed(spec, task, params)
    check_hidden_states(spec, task, params)
    if task is Task.SCORE and spec.labels:
        label_index(spec, params.label)
    elif params.label is not None:
        had = "this model has none" if task is Task.SCORE else f"this is {task}"
        raise InvalidOption(
            f"label chooses what a score is where the model has several; {had}, so leave it out",
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


def finish(
    spec: ModelSpec, prepared: Prepared, rows: Sequence[Row], token_name: TokenName = str
) -> Result:
    """Turn the rows of a request's sequences, in order, into the task's result.

    ``token_name`` says what the tokens of sparse vectors are called.
    """
    if spec.kind in _RETRIEVAL:
        found = _finish_retrieval(spec, prepared, rows, token_name)
        if found is not None:
            return found
    task, params = prepared.task, prepared.params
    if prepared.windows is not None:
        rows = merged(spec, prepared, rows)
    if task is Task.EMBED:
        return embeddings(spec, params, rows)
    if task is Task.CLASSIFY:
        return classification(spec, params, rows)
    if task is Task.SCORE and spec.kind is Kind.CLASSIFIER:
        return label_scores(spec, params, rows)
    if task is Task.SCORE:
        return similarities(spec, prepared, rows)
    if task is Task.REWARD and spec.kind is Kind.CLASSIFIER:
        return rewards(spec, params, rows)
    return _finish_tokens(spec, prepared, rows)


def _finish_tokens(spec: ModelSpec, prepared: Prepared, rows: Sequence[Row]) -> Result:
    """Return the result of a task that has one row a token."""
    if prepared.task is Task.CLASSIFY_TOKENS:
        return token_classes(spec, prepared, rows)
    if prepared.task is Task.REWARD and spec.labels:
        return token_rewards(spec, prepared, rows)
    tag = prepared.params.step_tag_id if prepared.task is Task.REWARD else None
    states = [row[TOKEN_EMBEDDINGS] for row in rows]
    if prepared.task is Task.ENCODE:
        return hidden_states(prepared.params, states)
    if tag is not None:
        pairs = zip(states, prepared.sequences, strict=True)
        states = [state[sequence.ids == tag] for state, sequence in pairs]
    return Ragged.from_rows(states)


_RETRIEVAL = (Kind.SPARSE, Kind.MULTI_VECTOR, Kind.HYBRID)


def _finish_retrieval(
    spec: ModelSpec, prepared: Prepared, rows: Sequence[Row], token_name: TokenName
) -> Result | None:
    """Return the result of a task that only these kinds have; None for the others."""
    task = prepared.task
    if task is Task.EMBED_SPARSE and prepared.params.by_token:
        return weights_by_token(spec, prepared, rows)
    if task is Task.EMBED_SPARSE:
        return sparse_vectors(spec, prepared, rows, token_name)
    if task is Task.EMBED_TOKENS:
        return token_vectors(spec, prepared.params, rows)
    if task is Task.EMBED_HYBRID:
        return hybrid_vectors(spec, prepared, rows, token_name)
    if task is Task.SCORE and spec.kind is Kind.SPARSE:
        return sparse_scores(spec, prepared, rows)
    if task is Task.SCORE and spec.kind is Kind.MULTI_VECTOR:
        return late_interaction_scores(spec, prepared, rows)
    return None
