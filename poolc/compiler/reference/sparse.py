"""The reference of SPLADE models: sentence-transformers' pooling over transformers' logits."""

from __future__ import annotations

import torch

from poolc.compiler.reference.base import Case, Subject
from poolc.compiler.reference.transformer import TransformerReference
from poolc.runtime.request import Item
from poolc.spec import ATTENTION_MASK, SPARSE_EMBEDDING, TOKEN_EMBEDDINGS

_ACTIVATIONS = {1: "relu", 2: "log1p_relu"}


class SparseReference(TransformerReference):
    """The masked language model that transformers builds, and SpladePooling."""

    name = "transformers and sentence-transformers' SpladePooling"

    def __init__(self, subject: Subject) -> None:
        from sentence_transformers.sparse_encoder.modules import SpladePooling

        super().__init__(subject)
        if self.spec.sparse is None:
            raise ValueError("a sparse model has a SparseSpec; this is a bug in poolc")
        self._pooling = SpladePooling(
            self.spec.sparse.pooling, _ACTIVATIONS[self.spec.sparse.log1p]
        ).eval()

    def outputs(self, case: Case, item: Item) -> dict[str, torch.Tensor]:
        inputs = self.encode(item)
        output = self.model(**inputs, output_hidden_states=True)
        features = {"token_embeddings": output.logits, ATTENTION_MASK: inputs[ATTENTION_MASK]}
        return {
            SPARSE_EMBEDDING: self._pooling(features)["sentence_embedding"],
            TOKEN_EMBEDDINGS: output.hidden_states[-1],
        }
