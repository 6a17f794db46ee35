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
from poolc.spec import LayerKind, LayerSpec

_FILE = "model.safetensors"
# What vLLM reads besides the library's own "linear.".
_DENSE_PREFIXES = ("linear.", "dense.", "")


class Dense(nn.Module):
    """activation(linear(x)), plus x (projected where the sizes differ) with a residual."""

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
        _load(self, spec, folder)

    def forward(self, x: Tensor) -> Tensor:  # (..., in) -> (..., out)
        out: Tensor = self.activation(self.linear(x))
        return out if self.residual is None else out + self.residual(x)


class LayerNorm(nn.Module):
    """torch's LayerNorm with its usual epsilon."""

    def __init__(self, spec: LayerSpec, folder: Path) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(spec.in_features)
        _load(self, spec, folder)

    def forward(self, x: Tensor) -> Tensor:  # (..., size)
        out: Tensor = self.norm(x)
        return out


class Normalize(nn.Module):
    """Unit length."""

    def __init__(self, spec: LayerSpec, folder: Path) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:  # (..., size)
        return nn.functional.normalize(x, p=2.0, dim=-1)


_MODULES: dict[LayerKind, type[nn.Module]] = {
    LayerKind.DENSE: Dense,
    LayerKind.LAYER_NORM: LayerNorm,
    LayerKind.NORMALIZE: Normalize,
}


def layer_modules(specs: tuple[LayerSpec, ...], folder: Path) -> nn.ModuleList:
    """Return the modules of a chain, in order; ``folder`` is the source model's.

    Raises CorruptWeights that names the file.
    """
    return nn.ModuleList(_MODULES[spec.kind](spec, folder) for spec in specs)


def _load(module: nn.Module, spec: LayerSpec, folder: Path) -> None:
    tensors = {key: value.float() for key, value in load_file(folder / spec.path / _FILE).items()}
    try:
        module.load_state_dict(_with_library_names(tensors))
    except RuntimeError as error:
        raise CorruptWeights(
            f"{spec.path}/{_FILE} does not fit {spec.path}/config.json: {one_line(error)}"
        ) from error


def _with_library_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Call the weights of Dense as the library does, whatever wrote them."""
    for prefix in _DENSE_PREFIXES:
        if f"{prefix}weight" in tensors:
            renamed = {f"{prefix}{name}": f"linear.{name}" for name in ("weight", "bias")}
            return {renamed.get(key, key): value for key, value in tensors.items()}
    return tensors
