"""Linear layers that lie in a file beside or among the trunk's weights."""

from __future__ import annotations

from pathlib import Path

from safetensors import safe_open
from torch import Tensor, nn

from poolc.compiler.heads.layers import layer_modules
from poolc.compiler.linear_files import linear_tensor_names
from poolc.spec import LayerSpec


class FileLinear(nn.Linear):
    """The linear layer that a safetensors file holds, in fp32."""

    def __init__(self, spec: LayerSpec, folder: Path) -> None:
        super().__init__(spec.in_features, spec.out_features, bias=spec.bias)
        self.load_state_dict(linear_tensors(spec, folder))


def linear_tensors(spec: LayerSpec, folder: Path) -> dict[str, Tensor]:
    """Read ``weight`` and ``bias`` in fp32."""
    with safe_open(folder / spec.path, framework="pt") as file:
        names = linear_tensor_names(spec, set(file.keys()))
        return {name: file.get_tensor(stored).float() for name, stored in names.items()}


def token_layers(specs: tuple[LayerSpec, ...], folder: Path) -> nn.ModuleList:
    """Return the modules that project token vectors, in order."""
    if any((folder / spec.path).is_file() for spec in specs):
        return nn.ModuleList(FileLinear(spec, folder) for spec in specs)
    return layer_modules(specs, folder)
