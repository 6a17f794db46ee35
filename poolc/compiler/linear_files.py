"""Linear layers that lie in a file beside or among a model's weights: sizes, without the weights.

Stanford's ColBERT keeps ``linear.weight`` among the trunk's tensors, BGE-M3 a file a layer.
"""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from poolc.errors import CorruptWeights, UnsupportedModel
from poolc.spec import LayerSpec

_WEIGHT_NAMES = ("linear.weight", "weight")


def linear_layer(folder: Path, path: str, needed_by: str) -> LayerSpec:
    """Describe the linear layer in the safetensors file ``path`` below ``folder``.

    Raises UnsupportedModel where the file or layer is missing, CorruptWeights for a damaged one.
    """
    if not (folder / path).is_file():
        raise UnsupportedModel(f"{path} is missing, which {needed_by} needs")
    try:
        with safe_open(folder / path, framework="pt") as file:
            names = set(file.keys())
            weight = next((name for name in _WEIGHT_NAMES if name in names), None)
            shape = tuple(file.get_slice(weight).get_shape()) if weight else ()
    except (SafetensorError, OSError) as error:
        raise CorruptWeights(f"{path} cannot be read: {error}") from error
    if weight is None or len(shape) != 2:
        raise UnsupportedModel(
            f"{path} holds no linear layer ({' or '.join(_WEIGHT_NAMES)}), which {needed_by} needs"
        )
    bias = f"{weight.removesuffix('weight')}bias" in names
    return LayerSpec(path, in_features=shape[1], out_features=shape[0], bias=bias)


def linear_tensor_names(layer: LayerSpec, names: set[str]) -> dict[str, str]:
    """Return which tensors of the file are the layer's ``weight`` and ``bias``."""
    weight = next(name for name in _WEIGHT_NAMES if name in names)
    found = {"weight": weight}
    if layer.bias:
        found["bias"] = f"{weight.removesuffix('weight')}bias"
    return found
