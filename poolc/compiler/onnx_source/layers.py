"""The weights of the modules behind pooling, as NumPy arrays: Dense, LayerNorm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file

from poolc.errors import CorruptWeights
from poolc.spec import LayerKind, LayerSpec

LAYER_NORM_EPSILON = 1e-5  # torch's default, which Sentence Transformers keeps

# What vLLM reads besides the library's own "linear.".
DENSE_PREFIXES = ("linear.", "dense.", "")

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Layer:
    """One module and its tensors, by the names of torch's state dict."""

    spec: LayerSpec
    tensors: Mapping[str, Floats] = field(default_factory=dict)


def load_layers(specs: tuple[LayerSpec, ...], folder: Path) -> list[Layer]:
    """Read the modules' safetensors, in order. Raises CorruptWeights."""
    return [_load(spec, folder) for spec in specs]


def _load(spec: LayerSpec, folder: Path) -> Layer:
    wanted = _shapes(spec)
    if not wanted:
        return Layer(spec)
    file = f"{spec.path}/model.safetensors"
    try:
        loaded = load_file(folder / file)
    except (SafetensorError, OSError, TypeError, KeyError) as error:
        raise CorruptWeights(f"{file} cannot be read: {' '.join(str(error).split())}") from error
    loaded = _with_library_names(loaded)
    found = {name: tensor.shape for name, tensor in loaded.items()}
    if found != wanted:
        raise CorruptWeights(
            f"{file} does not fit {spec.path}/config.json: it has {found} instead of {wanted}"
        )
    return Layer(spec, {name: tensor.astype(np.float32) for name, tensor in loaded.items()})


def _with_library_names(tensors: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """Call the weights of Dense as the library does, whatever wrote them."""
    for prefix in DENSE_PREFIXES:
        if f"{prefix}weight" in tensors:
            renamed = {f"{prefix}{name}": f"linear.{name}" for name in ("weight", "bias")}
            return {renamed.get(key, key): value for key, value in tensors.items()}
    return tensors


def _shapes(spec: LayerSpec) -> dict[str, tuple[int, ...]]:
    if spec.kind is LayerKind.NORMALIZE:
        return {}
    if spec.kind is LayerKind.LAYER_NORM:
        return {"norm.weight": (spec.out_features,), "norm.bias": (spec.out_features,)}
    matrix = (spec.out_features, spec.in_features)
    shapes: dict[str, tuple[int, ...]] = {"linear.weight": matrix}
    if spec.bias:
        shapes["linear.bias"] = (spec.out_features,)
    if spec.residual and spec.in_features != spec.out_features:
        shapes["residual.weight"] = matrix
    return shapes
