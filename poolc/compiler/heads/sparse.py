"""The head of SPLADE models: logits of a masked language model -> one weight a vocabulary token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from poolc.errors import UnsupportedModel
from poolc.spec import ATTENTION_MASK, SPARSE_EMBEDDING, TOKEN_EMBEDDINGS, ModelSpec


class SpladeHead(nn.Module):
    """log(1 + relu(logits)), pooled over the tokens of a text."""

    output_names = (SPARSE_EMBEDDING, TOKEN_EMBEDDINGS)
    wants_hidden_states = True

    def __init__(self, spec: ModelSpec, folder: Path) -> None:
        super().__init__()
        if spec.sparse is None:
            raise UnsupportedModel(f"{spec.architecture} has no sparse pooling")
        self.pooling = spec.sparse.pooling
        self.log1p = spec.sparse.log1p

    def extra_repr(self) -> str:
        return f"{self.pooling}, log1p={self.log1p}"

    def forward(self, outputs: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        logits = outputs.logits.float()  # (batch, seq, vocab)
        mask = inputs[ATTENTION_MASK]
        if self.pooling == "max":
            # relu and log1p never change an order: pooled first, they see one row a text.
            pooled = self._weights(logits.masked_fill(mask.unsqueeze(-1) == 0, 0.0).amax(dim=1))
        else:
            # As a product the masked sum needs no second tensor of this size.
            pooled = (mask.unsqueeze(1).float() @ self._weights(logits)).squeeze(1)
        return pooled, outputs.hidden_states[-1].float()

    def _weights(self, logits: Tensor) -> Tensor:
        weights = torch.relu(logits)
        for _ in range(self.log1p):
            weights = torch.log1p(weights)
        return weights
