"""Classes of transformers whose own ``forward`` is not what is exported, and what is instead.

Each adapter keeps the modules of the class and answers as it does, with ``logits`` and
``hidden_states``.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from torch import nn

from poolc.compiler.architecture import token_head
from poolc.compiler.heads.lm_rows import LmRows
from poolc.compiler.heads.pooling import pool
from poolc.spec import ATTENTION_MASK, Kind, ModelSpec, PoolingType, Trunk


def adapted(model: Any, spec: ModelSpec) -> nn.Module:
    """Return the module that is exported for ``model``: itself in most cases."""
    if spec.lm_head is not None:
        return LmRows(model, spec.lm_head, every_token=spec.kind is Kind.REWARD)
    if spec.kind is Kind.REWARD and spec.trunk is Trunk.BASE and spec.labels:
        return TokenHeadModel(model)
    if spec.trunk is Trunk.SEQUENCE_CLASSIFIER and _needs_padding_id(model):
        return LastTokenClassifier(model)
    trunk: nn.Module = model
    return trunk


class TokenHeadModel(nn.Module):
    """Base model and token head, without what the class does next (keeping the last token)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.base = model.base_model
        head = token_head(model)
        if head is None:
            raise ValueError(f"{type(model).__name__} has no token head; this is a bug in poolc")
        self.score = getattr(model, head.name)

    def forward(self, **inputs: Any) -> SimpleNamespace:
        hidden = self.base(**{**inputs, "output_hidden_states": False}).last_hidden_state
        return SimpleNamespace(logits=self.score(hidden), hidden_states=(hidden,))


class LastTokenClassifier(nn.Module):
    """A classifier over a decoder that names no padding id, for batches.

    Its class refuses more than one text, or takes padding for text, and the last position of one:
    the last token.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.base = model.base_model
        self.score = model.score

    def forward(self, **inputs: Any) -> SimpleNamespace:
        hidden = self.base(**{**inputs, "output_hidden_states": False}).last_hidden_state
        last = pool(hidden, inputs[ATTENTION_MASK], PoolingType.LAST)
        return SimpleNamespace(logits=self.score(last), hidden_states=(hidden,))


def _needs_padding_id(model: Any) -> bool:
    named = getattr(model.config.get_text_config(), "pad_token_id", None)
    # -1 is what Llama's first configurations write for none.
    unnamed = named is None or named < 0
    return unnamed and isinstance(getattr(model, "score", None), nn.Linear)
