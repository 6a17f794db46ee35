"""The reference of BGE-M3: sentence-transformers for the dense vector, FlagEmbedding's published
formulas for the rest (it pins a transformers that is too old to run beside).

relu(sparse_linear(h)) of every token; colbert_linear of all but the first, at unit length.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from poolc.compiler.heads.linear import linear_tensors
from poolc.compiler.reference.base import Case, Subject
from poolc.compiler.reference.embedding import EmbeddingReference
from poolc.runtime.request import Item
from poolc.spec import SPARSE_WEIGHTS, TOKEN_EMBEDDINGS, TOKEN_VECTORS, Task


class HybridReference(EmbeddingReference):
    """Linear layers over the hidden states of the dense model."""

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        sparse, tokens = self.spec.sparse, self.spec.multi_vector
        if sparse is None or sparse.layer is None or tokens is None:
            raise ValueError("a hybrid model has both heads; this is a bug in poolc")
        self.name += " and FlagEmbedding's formulas"
        self._sparse = linear_tensors(sparse.layer, subject.folder)
        self._tokens = linear_tensors(tokens.layers[0], subject.folder)

    def cases(self) -> list[Case]:
        (case,) = super().cases()
        return [Case(Task.EMBED_HYBRID, case.items, case.params)]

    def outputs(self, case: Case, item: Item) -> dict[str, torch.Tensor]:
        outputs = super().outputs(case, item)
        hidden = outputs[TOKEN_EMBEDDINGS]
        vectors = functional.linear(hidden[:, 1:], **self._tokens)
        if self.spec.multi_vector and self.spec.multi_vector.normalize:
            vectors = functional.normalize(vectors, dim=-1)
        return {
            **outputs,
            SPARSE_WEIGHTS: functional.linear(hidden, **self._sparse).relu().squeeze(-1),
            TOKEN_VECTORS: vectors,
        }
