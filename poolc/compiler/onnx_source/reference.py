"""The reference of models from ONNX: the shipped graph, one text at a time, and heads in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from poolc.compiler.comparison import Case, Subject
from poolc.compiler.onnx_source import numpy_heads
from poolc.compiler.onnx_source.layers import load_layers
from poolc.compiler.onnx_source.numpy_heads import Vector
from poolc.compiler.onnx_source.shipped import Shipped
from poolc.compiler.parity_texts import PARITY_MAX_LENGTH, parity_pairs, parity_texts
from poolc.runtime.request import Item, Params, Row
from poolc.spec import (
    INPUT_IDS,
    LOGITS,
    POOLED,
    PROBS,
    SENTENCE_EMBEDDING,
    SPARSE_EMBEDDING,
    TOKEN_EMBEDDINGS,
    TOKEN_LOGITS,
    TOKEN_TYPE_IDS,
    Activation,
    Kind,
)

Encoded = Mapping[str, npt.NDArray[np.int64]]  # each (1, seq)
Rows = dict[str, Vector]
_PROMPT = "Represent the sentence: "  # of models that have no prompt of their own


class ShippedReference:
    """Runs the graph in the file that was shipped, not the one that was compiled from it."""

    name = "shipped ONNX + NumPy heads"

    def __init__(self, subject: Subject, shipped: Shipped) -> None:
        self._spec = subject.recognized.spec
        self._tokenizer = subject.tokenizer
        self._shipped = shipped
        self._max_length = min(self._spec.max_length, PARITY_MAX_LENGTH)
        self._token_layers = load_layers(self._spec.token_layers, subject.folder)
        self._layers = load_layers(self._spec.layers, subject.folder)

    def cases(self) -> list[Case]:
        """See ``Reference.cases``."""
        items, spec = parity_texts(self._max_length), self._spec
        if spec.kind is Kind.CLASSIFIER:
            items = items + parity_pairs(self._max_length)
        params = Params(prompt="", truncate=True, max_length=self._max_length)
        case = Case(spec.tasks[0], items, params)
        if spec.include_prompt:
            return [case]
        prompt = next(filter(None, spec.prompts.values()), _PROMPT)
        return [case, replace(case, params=replace(params, prompt=prompt))]

    def token_ids(self, case: Case, item: Item) -> tuple[list[int], list[int] | None]:
        """See ``Reference.token_ids``; AutoTokenizer's."""
        encoded = self._encode(case, item)
        types = encoded.get(TOKEN_TYPE_IDS)
        return encoded[INPUT_IDS][0].tolist(), None if types is None else types[0].tolist()

    def rows(self, case: Case) -> list[Row]:
        """See ``Reference.rows``."""
        return [self._row(case, item) for item in case.items]

    def answers(self, case: Case, rows: Sequence[Row]) -> None:
        """See ``Reference.answers``: steps are refused here, so rows are the answers."""

    def _row(self, case: Case, item: Item) -> Row:
        encoded = self._encode(case, item)
        found = self._shipped.run(encoded)
        made = {name: value[0].astype(np.float64) for name, value in found.items()}
        rows: Rows = {}
        if self._shipped.tokens is not None:
            rows[TOKEN_EMBEDDINGS] = made[self._shipped.tokens]
        rows |= self._heads(made, case, encoded)
        return {name: value.astype(np.float32) for name, value in rows.items()}

    def _heads(self, made: Rows, case: Case, encoded: Encoded) -> Rows:
        """Compute the head's outputs of those of the graph."""
        if self._spec.kind is Kind.EMBEDDING:
            return self._embedding(made, self._prompt_length(case))
        return _HEADS[self._spec.kind](self, made)

    def _embedding(self, made: Rows, skipped: int) -> Rows:
        spec, rows = self._spec, Rows()
        if self._shipped.tokens is None:
            pooled = made[str(self._shipped.sentence)]
        else:
            hidden = numpy_heads.apply(self._token_layers, made[self._shipped.tokens])
            rows[TOKEN_EMBEDDINGS] = hidden
            pooled = numpy_heads.pool(hidden, spec.pooling, skipped)
            pooled = numpy_heads.apply(self._layers, pooled)
        unit = numpy_heads.normalize(pooled) if spec.normalize else pooled
        return {**rows, POOLED: pooled, SENTENCE_EMBEDDING: unit}

    def _classifier(self, made: Rows) -> Rows:
        spec = self._spec
        sigma = 1.0 if spec.logit_sigma is None else spec.logit_sigma
        logits = (made[str(self._shipped.logits)] - (spec.logit_mean or 0.0)) / sigma
        activation = spec.activation or Activation.IDENTITY
        return {LOGITS: logits, PROBS: numpy_heads.activate(activation, logits)}

    def _token_logits(self, made: Rows) -> Rows:
        return {TOKEN_LOGITS: made[str(self._shipped.token_logits)]} if self._spec.labels else {}

    def _sparse(self, made: Rows) -> Rows:
        if self._spec.sparse is None:
            raise ValueError("a sparse model has a SparseSpec; this is a bug in poolc")
        logits = made[str(self._shipped.token_logits)]
        return {SPARSE_EMBEDDING: numpy_heads.pool_sparse(logits, self._spec.sparse)}

    def _prompt_length(self, case: Case) -> int:
        """Count a prompt's tokens as Sentence Transformers does: without a special one at its end.

        Tokens before the prompt are among them.
        """
        if self._spec.include_prompt or not case.params.prompt:
            return 0
        ids = self._tokenizer(case.params.prompt)[INPUT_IDS]
        return len(ids) - (ids[-1] in self._tokenizer.all_special_ids)

    def _encode(self, case: Case, item: Item) -> Encoded:
        texts = item if isinstance(item, tuple) else ((case.params.prompt or "") + str(item),)
        encoded: Any = self._tokenizer(
            *texts, truncation=True, max_length=self._max_length, return_tensors="np"
        )
        return {n: encoded[n].astype(np.int64) for n in self._spec.inputs if n in encoded}


_HEADS: Mapping[Kind, Callable[[ShippedReference, Rows], Rows]] = {
    Kind.CLASSIFIER: ShippedReference._classifier,
    Kind.TOKEN_CLASSIFIER: ShippedReference._token_logits,
    Kind.REWARD: ShippedReference._token_logits,
    Kind.SPARSE: ShippedReference._sparse,
}
