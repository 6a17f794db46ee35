"""Sentence Transformers' modules behind pooling: Dense, LayerNorm, Normalize (its dense.py,
layer_norm.py and normalize.py of version 6). They work on vectors of texts and of tokens alike.
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn

from poolc.compiler.architecture import one_line
from poolc.compiler.heads.activations import activation_module
from poolc.errors import CorruptWeights
from poolc.spec import LayerSpec


class Dense(nn.Module):
    """Sentence Transformers' Dense: activation(linear(x)), plus a residual where configured."""

    def __init__(self, spec: LayerSpec, folder: Path) -> None:
        super().__init__()
        self.linear = nn.Linear(spec.in_features, spec.out_features, bias=spec.bias)
        self.activation = activation_module(spec.activation)
        self.residual: nn.Module | None = None
        if spec.residual:
            same = spec.in_features == spec.out_features
            self.residual = (
                nn.Identity()
                if same
                else nn.Linear(spec.in_features, spec.out_features, bias=False)
            )
        path = folder / spec.path / "model.safetensors"
        try:
            self.load_state_dict({k: v.float() for k, v in load_file(path).items()})
        except RuntimeError as error:
            raise CorruptWeights(
                f"{spec.path}/model.safetensors does not fit {spec.path}/config.json: "
                f"{one_line(error)}"
            ) from error

    def forward(self, x: Tensor) -> Tensor:  # (..., in) -> (..., out)
        out: Tensor = self.activation(self.linear(x))
        return out if self.residual is None else out + self.residual(x)


def layer_modules(specs: tuple[LayerSpec, ...], folder: Path) -> nn.ModuleList:
    """Return the modules of a chain, in order."""
    return nn.ModuleList(Dense(spec, folder) for spec in specs)
