"""A table of token vectors as a trunk; ``compiler/static.py`` reads the rest of such models."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from safetensors import safe_open
from torch import Tensor, nn

from poolc.compiler.static import MAPPING, STATIC_WEIGHTS, TOKEN_WEIGHTS, table_name
from poolc.errors import CorruptWeights


class StaticTrunk(nn.Module):
    """Looks tokens up, in the place of a transformer."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = nn.Embedding(table.shape[0], table.shape[1], _weight=table)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=self.table(input_ids))


def load_static(folder: Path) -> StaticTrunk:
    """Load the table in fp32, one row a token. Raises CorruptWeights."""
    with safe_open(folder / STATIC_WEIGHTS, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    table = tensors[table_name(tensors)].float()
    try:
        if MAPPING in tensors:
            table = table[tensors[MAPPING].long()]
        if TOKEN_WEIGHTS in tensors:
            table = table * tensors[TOKEN_WEIGHTS].float()[:, None]
    except (IndexError, RuntimeError) as error:
        raise CorruptWeights(
            f"{STATIC_WEIGHTS}: {MAPPING} and {TOKEN_WEIGHTS} do not fit the table: {error}"
        ) from error
    return StaticTrunk(table.contiguous()).eval().requires_grad_(False)
