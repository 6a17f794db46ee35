"""The reference of models from ONNX: the shipped graph, one text at a time, and heads in NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from poolc.compiler.comparison import Case, Subject
from poolc.compiler.onnx_source import numpy_heads
from poolc.compiler.onnx_source.layers import load_layers
from poolc.compiler.onnx_source.shipped import Shipped
from poolc.compiler.parity_texts import PARITY_MAX_LENGTH, parity_pairs, parity_texts
from poolc.runtime.request import Item, Params, Row
from poolc.spec import (
    INPUT_IDS,
    LOGITS,
    POOLED,
    PROBS,
    SENTENCE_EMBEDDING,
    TOKEN_EMBEDDINGS,
    TOKEN_TYPE_IDS,
    Activation,
    Kind,
)


class ShippedReference:
    """Runs the graph in the file that was shipped, not the one that was compiled from it."""

    name = "shipped ONNX + NumPy heads"

    def __init__(self, subject: Subject, shipped: Shipped) -> None:
        self._spec = subject.recognized.spec
        self._tokenizer = subject.tokenizer
        self._shipped = shipped
        self._max_length = min(self._spec.max_length, PARITY_MAX_LENGTH)
        self._layers = load_layers(self._spec.layers, subject.folder)

    def cases(self) -> list[Case]:
        """See ``Reference.cases``."""
        items = parity_texts(self._max_length)
        if self._spec.kind is Kind.CLASSIFIER:
            items = items + parity_pairs(self._max_length)
        params = Params(prompt="", truncate=True, max_length=self._max_length)
        return [Case(self._spec.tasks[0], items, params)]

    def token_ids(self, case: Case, item: Item) -> tuple[list[int], list[int] | None]:
        """See ``Reference.token_ids``; AutoTokenizer's."""
        encoded = self._encode(item)
        types = encoded.get(TOKEN_TYPE_IDS)
        return encoded[INPUT_IDS][0].tolist(), None if types is None else types[0].tolist()

    def rows(self, case: Case) -> list[Row]:
        """See ``Reference.rows``."""
        return [self.row(item) for item in case.items]

    def answers(self, case: Case, rows: Sequence[Row]) -> None:
        """See ``Reference.answers``: the graph's outputs are the answer."""

    def row(self, item: Item) -> Row:
        """Return the outputs of one item."""
        found = self._shipped.run(self._encode(item))
        made = {name: value[0].astype(np.float64) for name, value in found.items()}
        if self._spec.kind is Kind.CLASSIFIER:
            row = self._classifier(made[str(self._shipped.logits)])
        else:
            row = self._embedding(made)
        return {name: value.astype(np.float32) for name, value in row.items()}

    def _classifier(self, logits: npt.NDArray[np.float64]) -> dict[str, npt.NDArray[np.float64]]:
        activation = self._spec.activation or Activation.IDENTITY
        return {LOGITS: logits, PROBS: numpy_heads.activate(activation, logits)}

    def _embedding(
        self, made: dict[str, npt.NDArray[np.float64]]
    ) -> dict[str, npt.NDArray[np.float64]]:
        rows, spec = {}, self._spec
        if self._shipped.tokens is None:
            pooled = made[str(self._shipped.sentence)]
        else:
            rows[TOKEN_EMBEDDINGS] = hidden = made[self._shipped.tokens]
            if spec.kind is Kind.REWARD:
                return rows
            pooled = numpy_heads.apply(self._layers, numpy_heads.pool(hidden, spec.pooling))
        unit = numpy_heads.normalize(pooled) if spec.normalize else pooled
        return {**rows, POOLED: pooled, SENTENCE_EMBEDDING: unit}

    def _encode(self, item: Item) -> dict[str, npt.NDArray[Any]]:
        texts = item if isinstance(item, tuple) else (item,)
        encoded = self._tokenizer(
            *texts, truncation=True, max_length=self._max_length, return_tensors="np"
        )
        return {name: encoded[name].astype(np.int64) for name in self._spec.inputs}
