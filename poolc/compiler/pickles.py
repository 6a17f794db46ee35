"""Pickled weights, and the policy for them: torch's weights-only loader, and nothing else unasked.

``allow_pickle`` unpickles in full only what that loader refuses.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from poolc.compiler.events import Progress
from poolc.errors import CorruptWeights, UnsafeWeights
from poolc.spec import CompileOptions

# How a file of torch.save starts: a zip archive, or, before torch 1.6, a pickle.
_TORCH_MAGIC = (b"PK\x03\x04", b"\x80")
# What unpickling raises for a file that is damaged or names classes that are not there.
_UNPICKLING_ERRORS = (
    *(pickle.PickleError, RuntimeError, EOFError, OSError),
    *(AttributeError, ImportError, LookupError, TypeError, ValueError),
)


def load_pickles(
    paths: list[Path], options: CompileOptions, progress: Progress
) -> dict[str, torch.Tensor]:
    """Merge the tensors of pickled state dicts.

    Raises UnsafeWeights or CorruptWeights.
    """
    tensors: dict[str, torch.Tensor] = {}
    for path in paths:
        progress.warn(f"{path.name} is a pickle: reading it with torch's weights-only loader")
        loaded = _load_pickle(path, options, progress)
        # Clones: safetensors refuses tensors that share memory (tied weights).
        tensors |= {key: value.clone().contiguous() for key, value in loaded.items()}
    return tensors


def _load_pickle(
    path: Path, options: CompileOptions, progress: Progress
) -> dict[str, torch.Tensor]:
    with path.open("rb") as file:
        if not file.read(4).startswith(_TORCH_MAGIC):
            raise CorruptWeights(
                f"{path.name} is not a file that torch saved (a Git LFS pointer?): "
                "download it again"
            )
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not options.allow_pickle:
            raise UnsafeWeights(
                f"{path.name} holds more than tensors, and unpickling it can run any code; torch's "
                "weights-only loader refused it. Convert it to safetensors, or pass --allow-pickle "
                "(allow_pickle=True) if you trust where it came from"
            ) from error
        progress.warn(f"{path.name} is unpickled in full, as --allow-pickle allows")
        loaded = _unpickle(path)
    except _UNPICKLING_ERRORS as error:
        raise CorruptWeights(f"{path.name} cannot be read: {error}") from error
    if not isinstance(loaded, Mapping):
        raise CorruptWeights(f"{path.name} holds a {type(loaded).__name__}, not a state dict")
    return {key: value for key, value in loaded.items() if isinstance(value, torch.Tensor)}


def _unpickle(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except _UNPICKLING_ERRORS as error:
        raise CorruptWeights(f"{path.name} cannot be unpickled: {error}") from error
