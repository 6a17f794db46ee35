"""Logits and probabilities of whole texts and pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from poolc.errors import InvalidOption
from poolc.runtime.outputs import Classification, Float32
from poolc.runtime.request import Params, Row
from poolc.spec import LOGITS, PROBS, ModelSpec


def class_rows(params: Params, rows: Sequence[Row], *, default: bool) -> Float32:
    """Return probabilities or logits [n, labels]; ``default`` where the request does not say."""
    activated = default if params.use_activation is None else params.use_activation
    return np.stack([row[PROBS if activated else LOGITS] for row in rows])


def classification(spec: ModelSpec, params: Params, rows: Sequence[Row]) -> Classification:
    """Return the best label and all probabilities of each text."""
    values = class_rows(params, rows, default=spec.use_activation)
    best = values.argmax(axis=1)
    return Classification([spec.labels[i] for i in best], values, spec.labels)


def label_scores(spec: ModelSpec, params: Params, rows: Sequence[Row]) -> Float32:
    """Return one score a pair [n]: the value of the label that a score is."""
    column = label_index(spec, params.label)
    return class_rows(params, rows, default=spec.use_activation)[:, column].copy()


def rewards(spec: ModelSpec, params: Params, rows: Sequence[Row]) -> Float32:
    """Return one reward a text [n], raw unless the request or --pooler-config says otherwise."""
    return class_rows(params, rows, default=spec.reward_activation)[:, 0].copy()


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
