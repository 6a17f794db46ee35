"""The head of embedding models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from poolc.compiler.heads.layers import layer_modules
from poolc.compiler.heads.pooling import pool
from poolc.spec import (
    ATTENTION_MASK,
    INPUT_IDS,
    POOLED,
    POOLING_MASK,
    SENTENCE_EMBEDDING,
    TOKEN_EMBEDDINGS,
    ModelSpec,
)


class EmbeddingHead(nn.Module):
    """Layers on every token, pooling, layers on the vector, Normalize."""

    output_names: tuple[str, ...] = (POOLED, SENTENCE_EMBEDDING, TOKEN_EMBEDDINGS)
    wants_hidden_states = False

    def __init__(self, spec: ModelSpec, folder: Path) -> None:
        super().__init__()
        self.kinds = spec.pooling
        self.uncounted_ids = spec.uncounted_ids
        self.token_layers = layer_modules(spec.token_layers, folder)
        self.layers = layer_modules(spec.layers, folder)
        self.normalize = spec.normalize

    def forward(self, outputs: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        hidden = outputs.last_hidden_state.float()
        for layer in self.token_layers:
            hidden = layer(hidden)
        mask, counted = inputs[ATTENTION_MASK], inputs.get(POOLING_MASK)
        for token_id in self.uncounted_ids:
            mask = mask * (inputs[INPUT_IDS] != token_id)
        pooled = torch.cat([pool(hidden, mask, kind, counted) for kind in self.kinds], dim=-1)
        for layer in self.layers:
            pooled = layer(pooled)
        unit = nn.functional.normalize(pooled, p=2.0, dim=-1) if self.normalize else pooled.clone()
        return pooled, unit, hidden
