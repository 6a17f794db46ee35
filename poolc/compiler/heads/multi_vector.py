"""The head of multi-vector models (ColBERT): every token projected, then scaled to unit length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from poolc.compiler.heads.linear import token_layers
from poolc.errors import UnsupportedModel
from poolc.spec import TOKEN_EMBEDDINGS, TOKEN_VECTORS, ModelSpec


class TokenProjection(nn.Module):
    """Layers and Normalize over (batch, seq, hidden)."""

    def __init__(self, spec: ModelSpec, folder: Path) -> None:
        super().__init__()
        if spec.multi_vector is None:
            raise UnsupportedModel(f"{spec.architecture} has no token vectors")
        self.layers = token_layers(spec.multi_vector.layers, folder)
        self.normalize = spec.multi_vector.normalize

    def extra_repr(self) -> str:
        return f"normalize={self.normalize}"

    def forward(self, vectors: Tensor) -> Tensor:
        for layer in self.layers:
            vectors = layer(vectors)
        if self.normalize:
            return nn.functional.normalize(vectors, p=2.0, dim=-1)
        return vectors.clone()  # an output of its own, where there are no layers either


class MultiVectorHead(nn.Module):
    """One vector a token."""

    output_names = (TOKEN_VECTORS, TOKEN_EMBEDDINGS)
    wants_hidden_states = False

    def __init__(self, spec: ModelSpec, folder: Path) -> None:
        super().__init__()
        self.projection = TokenProjection(spec, folder)

    def forward(self, outputs: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        hidden = outputs.last_hidden_state.float()
        return self.projection(hidden), hidden
