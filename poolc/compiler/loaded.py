"""Weights that are not those of the model: none, some missing, of another shape, left over."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from poolc.errors import CorruptWeights
from poolc.model_cache.source_files import ONNX_FILES
from poolc.spec import Trunk

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from poolc.compiler.architecture import Architecture

# What old versions saved and every version computes: positions, frequencies, causal masks. And
# what encoders that once were decoders have, which read no other text.
_COMPUTED = re.compile(
    r"(position_ids|token_type_ids|inv_freq|cos_cached|sin_cached|masked_bias)$"
    r"|\.(attn|attention)\.bias$|\.crossattention\."
)
_OTHER_WEIGHTS = frozenset({".h5", ".msgpack", ".ot", ".gguf"})


def check_weights(folder: Path) -> None:
    """Refuse a folder whose weights are in other formats, with a way out. Raises CorruptWeights."""
    if any(folder.glob("*.safetensors")):
        return
    others = sorted(path.name for path in folder.iterdir() if path.suffix in _OTHER_WEIGHTS)
    graph = next((name for name in ONNX_FILES if (folder / name).is_file()), None)
    if graph:
        hint = f"it ships {graph}, which --from-onnx (from_onnx=True) compiles"
    elif others:
        hint = f"save it as safetensors with a library that reads {', '.join(others)}"
    else:  # of a repository on the hub, neither of these is fetched
        hint = "if it ships onnx/model.onnx, --from-onnx (from_onnx=True) compiles that"
    raise CorruptWeights(
        f"the model has no weights that poolc reads, model.safetensors or pytorch_model.bin: {hint}"
    )


def check_loaded(model: PreTrainedModel, info: dict[str, Any], arch: Architecture) -> None:
    """Refuse weights that are not those of the model. Raises CorruptWeights."""
    # Base models are often saved without the pooler that their class builds; no head here reads
    # it. Classifiers do.
    needless = "pooler." if arch.trunk is Trunk.BASE else ()
    missing = sorted(key for key in info["missing_keys"] if not key.startswith(needless))
    kind = type(model).__name__
    if missing:
        raise CorruptWeights(
            f"{len(missing)} tensors that {kind} needs are not in the weights ({_some(missing)}): "
            f"either the files are incomplete or they are not those of {arch.name}"
        )
    if info["mismatched_keys"]:
        key, found, wanted = sorted(info["mismatched_keys"])[0]
        raise CorruptWeights(
            f"{len(info['mismatched_keys'])} tensors have another shape than config.json gives "
            f"{arch.name}: {key} is {list(found)} in the weights and should be {list(wanted)}"
        )
    left = sorted(_left_over(model, info["unexpected_keys"]))
    if left:
        raise CorruptWeights(
            f"{len(left)} tensors of the weights have no place in {kind} ({_some(left)}): without "
            "them it would compute another model than was trained"
        )


def _left_over(model: PreTrainedModel, keys: Iterable[str]) -> Iterator[str]:
    """Yield the tensors of a module inside the trunk that the module has no use for.

    Beside the trunk lie heads that are not read here, and beyond a list of layers those that
    config.json leaves out.
    """
    import torch

    trunk = next((n for n, m in model.named_modules() if m is model.base_model), "")
    modules, buffers = dict(model.named_modules()), dict(model.named_buffers())
    # Weights of a larger class go on naming the attribute that this model is of it.
    attribute = "" if trunk else f"{model.base_model_prefix}."
    for key in (key.removeprefix(attribute) for key in keys):
        if key in buffers or _COMPUTED.search(key):
            continue
        parent = key.rpartition(".")[0]
        while parent not in modules:
            parent = parent.rpartition(".")[0]
        inside = parent != trunk and parent.startswith(f"{trunk}." if trunk else "")
        if inside and not isinstance(modules[parent], torch.nn.ModuleList):
            yield key


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
