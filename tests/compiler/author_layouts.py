"""Checkpoints in their authors' layout, of models that transformers has too.

``save_pretrained`` writes the tensors of these families as their authors do, so a folder in the
original layout is that one with the authors' config.json.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file, save_file

from tests.matrix.families import FAMILIES
from tests.models import HIDDEN, save_model, write_json, write_modules, write_pooling

RANK, ALPHA = 4, 2
TASKS = ["retrieval.query", "retrieval.passage", "separation", "classification", "text-matching"]
GTE = {
    "model_type": "new",
    "architectures": ["NewModel"],
    "auto_map": {"AutoModel": "Alibaba-NLP/new-impl--modeling.NewModel"},
    "hidden_size": HIDDEN,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "layer_norm_type": "layer_norm",
    "logn_attention_scale": False,
    "pack_qkv": True,
    "pad_token_id": 1,
    "position_embedding_type": "rope",
    "rope_scaling": {"factor": 8.0, "type": "ntk"},
    "rope_theta": 20000,
    "type_vocab_size": 1,
    "unpad_inputs": False,
}
NOMIC = {
    "model_type": "nomic_bert",
    "architectures": ["NomicBertModel"],
    "auto_map": {"AutoModel": "nomic-ai/nomic-bert-2048--modeling_hf_nomic_bert.NomicBertModel"},
    "activation_function": "swiglu",
    "layer_norm_epsilon": 1e-12,
    "max_trained_positions": 48,
    "mlp_fc1_bias": False,
    "n_embd": HIDDEN,
    "n_head": 4,
    "n_inner": 64,
    "n_layer": 2,
    "n_positions": 64,
    "prenorm": False,
    "qkv_proj_bias": False,
    "rotary_emb_base": 1000,
    "rotary_emb_fraction": 1.0,
    "rotary_scaling_factor": None,
    "type_vocab_size": 2,
}
JINA = {
    "model_type": "xlm-roberta",
    "architectures": ["XLMRobertaModel"],
    "auto_map": {"AutoModel": "jinaai/xlm-roberta-flash-implementation--modeling_lora.Lora"},
    "hidden_size": HIDDEN,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "layer_norm_eps": 1e-05,
    "pad_token_id": 1,
    "position_embedding_type": "rotary",
    "rotary_emb_base": 20000.0,
    "type_vocab_size": 1,
    "lora_adaptations": TASKS,
    "lora_alpha": ALPHA,
    "lora_rank": RANK,
}


_JINA_MODULES = (("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize"))


def native(folder: Path, name: str, **changes: Any) -> Any:
    """Save transformers' own model; return it."""
    folder.mkdir(exist_ok=True)
    config = FAMILIES[name].config(folder)
    config.update(changes)
    model = getattr(transformers, FAMILIES[name].backbone)(config)
    save_model(model, folder)
    write_modules(folder, ("Transformer", ""), ("Pooling", "1_Pooling"))
    write_pooling(folder, "mean_tokens", dim=config.hidden_size)
    return model.eval()


def as_author(folder: Path, config: dict[str, Any]) -> None:
    """Give a native folder the authors' config.json."""
    size = json.loads((folder / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    write_json(folder / "config.json", {**config, "vocab_size": size})


def gte_frequencies() -> torch.Tensor:
    """Return those of new-impl's NTKScalingRotaryEmbedding for ``GTE``."""
    dim, factor = HIDDEN // 4, 8.0
    base = (20000 * factor) ** (np.arange(0, dim, 2) / dim)
    return torch.tensor(1 / base / factor ** (2 / dim)).float()


def jina(folder: Path, **changes: Any) -> dict[str, np.ndarray]:
    """Write jina-embeddings-v3's layout; return the tensors."""
    native(folder, "jina-v3", **changes)
    as_author(folder, {**JINA, **changes})
    write_modules(folder, *_JINA_MODULES)
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    modules[0] |= {"type": "custom_st.Transformer", "kwargs": ["task"]}
    write_json(folder / "modules.json", modules)
    random = np.random.default_rng(3)
    stacked: dict[str, np.ndarray] = {}
    for name, value in load_file(folder / "model.safetensors").items():
        base, _, kind = name.rpartition(".")
        if kind != "weight" or value.ndim != 2 or "pooler" in name:
            stacked[f"roberta.{name}"] = value
            continue
        rows, columns = value.shape
        embedding = "embeddings" in name
        sizes = ((rows, RANK), (RANK, columns)) if embedding else ((RANK, columns), (rows, RANK))
        prefix = f"roberta.{base}.parametrizations.weight"
        stacked[f"{prefix}.original"] = value
        for side, size in zip("AB", sizes, strict=True):
            noise = random.standard_normal((len(TASKS), *size)).astype(np.float32)
            stacked[f"{prefix}.0.lora_{side}"] = 0.2 * noise
    save_file(stacked, folder / "model.safetensors", metadata={"format": "pt"})
    return stacked


def jina_native(folder: Path, target: Path, task: str) -> Path:
    """Write, of a folder in jina-embeddings-v3's layout, transformers' own with one adapter merged.

    The tokenizer is copied, not trained: training a Unigram tokenizer twice gives two.
    """
    shutil.copytree(folder, target)
    raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    same = ("vocab_size", "max_position_embeddings", "layer_norm_eps", "pad_token_id")
    config = transformers.JinaEmbeddingsV3Config(
        **{name: raw[name] for name in (*names, *same, "type_vocab_size")},
        rope_parameters={"rope_type": "default", "rope_theta": raw["rotary_emb_base"]},
        architectures=["JinaEmbeddingsV3Model"],
    )
    config.save_pretrained(target)
    weights = merged_by_hand(load_file(folder / "model.safetensors"), task)
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    write_modules(target, *_JINA_MODULES)
    return target


def merged_by_hand(stacked: dict[str, np.ndarray], task: str) -> dict[str, np.ndarray]:
    """W + (alpha / rank) B A; of embeddings A B."""
    index, weights = TASKS.index(task), {}
    for name, value in stacked.items():
        prefix, found, part = name.partition(".parametrizations.weight.")
        if not found:
            weights[name.removeprefix("roberta.")] = value
        elif part == "original":
            a, b = (stacked[f"{prefix}{found}0.lora_{side}"][index] for side in "AB")
            change = a @ b if "embeddings" in prefix else b @ a
            weights[f"{prefix.removeprefix('roberta.')}.weight"] = value + ALPHA / RANK * change
    return weights


def jina_peft(folder: Path, *, rslora: bool = False) -> Any:
    """Write Jina v3 with an adapter of PEFT below it; return transformers' model with it merged."""
    model = native(folder, "jina-v3")
    random, adapter = np.random.default_rng(4), {}
    scale = ALPHA / RANK**0.5 if rslora else ALPHA / RANK
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    for name in ("layers.0.self_attn.q_proj", "layers.1.mlp.fc1", "embeddings.word_embeddings"):
        rows, columns = weights[f"{name}.weight"].shape
        embedding = "embeddings" in name
        inner, outer = (rows, columns) if embedding else (columns, rows)
        a = random.standard_normal((RANK, inner)).astype(np.float32)
        b = random.standard_normal((outer, RANK)).astype(np.float32)
        kind, end = ("lora_embedding_", "") if embedding else ("lora_", ".weight")
        adapter[f"base_model.model.{name}.{kind}A{end}"] = a
        adapter[f"base_model.model.{name}.{kind}B{end}"] = b
        change = (b @ a).T if embedding else b @ a
        weights[f"{name}.weight"] += torch.from_numpy(scale * change)
    below = folder / "text_matching"
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "use_rslora": rslora}
    write_json(below / "adapter_config.json", settings)
    save_file(adapter, below / "adapter_model.safetensors")
    model.load_state_dict(weights)
    return model
