"""A causal language model as a trunk: a few rows of its head, at the last token or at every one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from poolc.compiler.heads.pooling import pool
from poolc.spec import ATTENTION_MASK, LmHeadSpec, PoolingType


class LmRows(nn.Module):
    """The base model and copies of the rows of ``spec``, so that the whole head is not exported."""

    def __init__(self, model: Any, spec: LmHeadSpec, *, every_token: bool) -> None:
        super().__init__()
        self.every_token = every_token
        self.base = model.base_model
        self.difference = spec.difference
        head, rows = model.get_output_embeddings(), list(spec.token_ids)
        self.rows = nn.Linear(head.in_features, len(rows), bias=head.bias is not None)
        with torch.no_grad():
            self.rows.weight.copy_(head.weight[rows])
            if head.bias is not None:
                self.rows.bias.copy_(head.bias[rows])
        config = model.config.get_text_config()
        self.cap = getattr(config, "final_logit_softcapping", None)  # Gemma 2

    def extra_repr(self) -> str:
        return f"difference={self.difference}, cap={self.cap}, every_token={self.every_token}"

    def forward(self, **inputs: Any) -> SimpleNamespace:
        hidden: Tensor = self.base(**{**inputs, "output_hidden_states": False}).last_hidden_state
        read = hidden
        if not self.every_token:
            read = pool(hidden, inputs[ATTENTION_MASK], PoolingType.LAST)
        logits = self.rows(read.float())  # (batch[, seq], tokens)
        if self.cap is not None:
            logits = torch.tanh(logits / self.cap) * self.cap
        if self.difference:
            logits = logits[..., 1:] - logits[..., :1]
        return SimpleNamespace(logits=logits, hidden_states=(hidden,))
