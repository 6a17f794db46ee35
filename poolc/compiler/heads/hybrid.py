"""The heads of BGE-M3: dense, sparse and multi-vector over one trunk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from poolc.compiler.heads.embedding import EmbeddingHead
from poolc.compiler.heads.linear import FileLinear
from poolc.compiler.heads.multi_vector import TokenProjection
from poolc.errors import UnsupportedModel
from poolc.spec import SPARSE_WEIGHTS, TOKEN_VECTORS, ModelSpec


class HybridHead(EmbeddingHead):
    """The dense head, a weight a token, and a vector a token.

    Which token a weight belongs to, and which have none, is the runtime's to say.
    """

    output_names = (*EmbeddingHead.output_names, SPARSE_WEIGHTS, TOKEN_VECTORS)

    def __init__(self, spec: ModelSpec, folder: Path) -> None:
        super().__init__(spec, folder)
        if spec.sparse is None or spec.sparse.layer is None:
            raise UnsupportedModel(f"{spec.architecture} has no sparse layer")
        self.weights = FileLinear(spec.sparse.layer, folder)
        self.projection = TokenProjection(spec, folder)

    def forward(self, outputs: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        pooled, unit, hidden = super().forward(outputs, inputs)
        weights = torch.relu(self.weights(hidden)).squeeze(-1)  # (batch, seq)
        return pooled, unit, hidden, weights, self.projection(hidden)
