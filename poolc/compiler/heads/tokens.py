"""Heads that answer with one row a token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from poolc.spec import TOKEN_EMBEDDINGS, TOKEN_LOGITS, ModelSpec


class HiddenStatesHead(nn.Module):
    """Hidden states as they are, for reward models without a head of their own."""

    output_names = (TOKEN_EMBEDDINGS,)
    wants_hidden_states = False

    def __init__(self, spec: ModelSpec, folder: Path) -> None:
        super().__init__()

    def forward(self, outputs: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        return (outputs.last_hidden_state.float(),)


class TokenLogitsHead(nn.Module):
    """Logits of every token, whose activation is the runtime's: requests choose among them."""

    output_names = (TOKEN_LOGITS, TOKEN_EMBEDDINGS)
    wants_hidden_states = True

    def __init__(self, spec: ModelSpec, folder: Path) -> None:
        super().__init__()

    def forward(self, outputs: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        return outputs.logits.float(), outputs.hidden_states[-1].float()
