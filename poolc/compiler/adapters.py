"""Jina v3's LoRA adapters: one a task, of which one is merged into the weights at compile.

Adapters of other models are refused: they lie beside weights that are not yet the model.

Both layouts: adapters stacked beside each weight (``parametrizations``, jina-embeddings-v3), and
PEFT's subfolders (jina-embeddings-v3-hf). W + (alpha / rank) B A; a table of embeddings is stored
the other way round, so its change is transposed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from poolc.compiler.json_files import read_json
from poolc.compiler.natives import JINA_V3
from poolc.errors import CorruptWeights, InvalidOption, UnsupportedModel

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

TASK_KEY = "jina_task"  # of config.json, so of hf_overrides
DEFAULT_TASK = "text-matching"
WEIGHTS = "model.safetensors"
_SETTINGS = "adapter_config.json"
_STACKED = ".parametrizations.weight."


def check_no_adapter(folder: Path) -> None:
    """Refuse a folder whose weights, if it has any, are those of an adapter's base model.

    transformers and Sentence Transformers put the adapter on them where PEFT is installed.
    """
    if not (folder / _SETTINGS).is_file():
        return
    settings = read_json(folder / _SETTINGS)
    base = settings.get("base_model_name_or_path") or "a model that it does not name"
    raise UnsupportedModel(
        f"{folder.name}/{_SETTINGS}: an adapter ({settings.get('peft_type', 'PEFT')}) of {base}, "
        "which poolc does not put on its weights: load it with PEFT, merge it (merge_and_unload), "
        "save the whole model and its tokenizer into another folder, and compile that"
    )


def tasks(folder: Path, config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the tasks that a model has adapters for, by the names that its files give them."""
    if config.get("model_type") != JINA_V3:
        return ()
    stacked = config.get("lora_adaptations")
    if stacked:
        return tuple(map(str, stacked))
    return tuple(sorted(path.parent.name for path in folder.glob(f"*/{_SETTINGS}")))


def merge_adapter(folder: Path, config: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """Replace the weights of ``folder`` by those with one task's adapter; return the task.

    ``folder`` is a mirror: links to weights are removed, not followed. Raises InvalidOption for
    an unknown task and CorruptWeights for an adapter that does not fit.
    """
    from safetensors.torch import load_file, save_file

    task = str(config.get(TASK_KEY, DEFAULT_TASK))
    found = {_plain(name): name for name in names}
    if _plain(task) not in found:
        raise InvalidOption(
            f"hf_overrides: {TASK_KEY} is {task!r}; this model has: {', '.join(names)}",
            param="hf_overrides",
        )
    name = found[_plain(task)]
    if config.get("lora_adaptations"):
        scale = float(config.get("lora_alpha", 1)) / float(config.get("lora_rank", 4))
        tensors: Tensors = {}
        for path in sorted(folder.glob("*.safetensors")):
            tensors |= load_file(path)
        merged = _merge_stacked(tensors, names.index(name), scale)
    else:
        merged = _merge_peft(folder, name)
    for path in [*folder.glob("*.safetensors"), *folder.glob("*.safetensors.index.json")]:
        path.unlink()
    save_file(merged, folder / WEIGHTS, metadata={"format": "pt"})
    return task


def _plain(task: str) -> str:
    """Spell a task alike whether it names a folder or a setting."""
    return re.sub(r"[^a-z]", "_", task.lower())


def _merge_stacked(tensors: Tensors, index: int, scale: float) -> Tensors:
    merged: Tensors = {}
    for name, value in tensors.items():
        base, stacked, part = name.partition(_STACKED)
        if not stacked:
            merged[name] = value
        elif part == "original":
            try:
                left, right = (tensors[f"{base}{_STACKED}0.lora_{side}"][index] for side in "BA")
            except (KeyError, IndexError) as error:
                raise CorruptWeights(f"{base}.weight has no adapter {index}: {error}") from error
            if "embeddings" in base:  # whose two are stored the other way round
                left, right = right, left
            merged[f"{base}.weight"] = _sum(value, left, right, scale, base)
    return merged


def _merge_peft(folder: Path, task: str) -> Tensors:
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModel

    settings = read_json(folder / task / _SETTINGS)
    rank, alpha = float(settings["r"]), float(settings["lora_alpha"])
    scale = alpha / rank**0.5 if settings.get("use_rslora") else alpha / rank
    adapter = load_file(folder / task / "adapter_model.safetensors")
    weights = AutoModel.from_pretrained(folder, dtype=torch.float32).state_dict()
    for name, low in adapter.items():
        module, found, rest = name.removeprefix("base_model.model.").partition(".lora_")
        if not found or not rest.startswith(("A", "embedding_A")):
            continue
        high = adapter[name.replace("_A", "_B")]
        target = next((key for key in _names_of(module) if key in weights), None)
        if target is None:
            raise CorruptWeights(f"{task}/adapter_model.safetensors: no tensor for {module}")
        embedding = rest.startswith("embedding")
        left, right = (low.T, high.T) if embedding else (high, low)
        weights[target] = _sum(weights[target], left, right, scale, target)
    return {name: value.contiguous() for name, value in weights.items()}


def _names_of(module: str) -> tuple[str, str]:
    return (f"{module}.weight", f"{module.removeprefix('roberta.')}.weight")


def _sum(
    weight: torch.Tensor, left: torch.Tensor, right: torch.Tensor, scale: float, name: str
) -> torch.Tensor:
    change = left.float() @ right.float() * scale
    if change.shape != weight.shape:
        raise CorruptWeights(
            f"the adapter of {name} is {list(change.shape)}, the weight {list(weight.shape)}"
        )
    return weight.float() + change
