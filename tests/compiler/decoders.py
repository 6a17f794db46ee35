"""Reward models over decoders: folders that bring their own code, and the same in NumPy."""

from __future__ import annotations

import json
import shutil
import sys
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from tests.models import HIDDEN, MAX_LENGTH, save_model, wordpiece

_CODE = Path(__file__).parent / "remote"
HEADS, KV_HEADS, LAYERS, BASE = 4, 2, 2, 10000.0
Array = np.ndarray[Any, Any]
SIZES: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "intermediate_size": 64,
    "max_position_embeddings": MAX_LENGTH,
    "pad_token_id": 0,
}
# A pooler configuration that makes a process reward model of a language model; 3 is [SEP].
STEP: dict[str, Any] = {"pooling_type": "STEP", "step_tag_id": 3, "returned_token_ids": [40, 17]}


def llama(folder: Path, kind: Any, **config: Any) -> Path:
    """A Llama of class ``kind``."""
    from transformers import LlamaConfig

    folder.mkdir()
    size = len(wordpiece(folder))
    save_model(kind(LlamaConfig(vocab_size=size, **{**SIZES, **config})), folder, seed=9)
    return folder


def remote_reward(folder: Path, architecture: str) -> Path:
    """A folder of InternLM2ForRewardModel or a reward class of Qwen2, with its Python file."""
    folder.mkdir(parents=True, exist_ok=True)
    words = wordpiece(folder)
    words.add_special_tokens({"additional_special_tokens": ["<extra_0>"]})
    words.save_pretrained(folder)
    internlm = architecture.startswith("InternLM2")
    file = "modeling_internlm2" if internlm else "modeling_qwen2_rm"
    code = Path(shutil.copy(_CODE / f"{file}.py.txt", folder / f"{file}.py"))
    spec = util.spec_from_file_location(f"remote_{file}", code)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    if internlm:
        config = module.InternLM2Config(vocab_size=len(words), rope_theta=BASE, **SIZES)
    else:
        from transformers import Qwen2Config

        config = Qwen2Config(vocab_size=len(words), **SIZES)
    save_model(getattr(module, architecture)(config), folder, seed=8)
    path = folder / "config.json"
    raw = json.loads(path.read_text(encoding="utf-8"))
    raw["architectures"] = [architecture]
    raw["auto_map"] = {"AutoModel": f"{file}.{architecture}"}
    if internlm:
        raw["auto_map"]["AutoConfig"] = f"{file}.InternLM2Config"
    path.write_text(json.dumps(raw), encoding="utf-8")
    return folder


def numpy_rewards(folder: Path, ids: Array) -> Array:
    """Return logits [len, columns] of one text, from the state dict alone, in float64."""
    raw = load_file(folder / "model.safetensors")
    weights = {name: value.astype(np.float64) for name, value in raw.items()}
    fused = "v_head.weight" in weights
    x = weights["model.tok_embeddings.weight" if fused else "model.embed_tokens.weight"][ids]
    for i in range(LAYERS):
        layer = {
            name.removeprefix(f"model.layers.{i}."): value
            for name, value in weights.items()
            if name.startswith(f"model.layers.{i}.")
        }
        before = layer["attention_norm.weight" if fused else "input_layernorm.weight"]
        after = layer["ffn_norm.weight" if fused else "post_attention_layernorm.weight"]
        qkv = _fused(layer, _norm(x, before)) if fused else _apart(layer, _norm(x, before))
        out = layer["attention.wo.weight" if fused else "self_attn.o_proj.weight"]
        x = x + _attention(*qkv) @ out.T
        names = ("w1", "w3", "w2") if fused else ("gate_proj", "up_proj", "down_proj")
        home = "feed_forward" if fused else "mlp"
        gate, up, down = (layer[f"{home}.{name}.weight"] for name in names)
        y = _norm(x, after)
        gated = y @ gate.T
        x = x + (gated / (1 + np.exp(-gated)) * (y @ up.T)) @ down.T
    x = _norm(x, weights["model.norm.weight"])
    if fused:
        return np.asarray(x @ weights["v_head.weight"].T)
    hidden = np.maximum(x @ weights["score.0.weight"].T + weights["score.0.bias"], 0)
    return np.asarray(hidden @ weights["score.2.weight"].T + weights["score.2.bias"])


def softmax(x: Array) -> Array:
    grown = np.exp(x - x.max(-1, keepdims=True))
    return np.asarray(grown / grown.sum(-1, keepdims=True))


def _norm(x: Array, gain: Array) -> Array:
    return np.asarray(gain * x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6))


def _fused(layer: dict[str, Array], x: Array) -> tuple[Array, Array, Array]:
    """InternLM2: for each key head its query heads, then the key, then the value."""
    groups = HEADS // KV_HEADS
    made = (x @ layer["attention.wqkv.weight"].T).reshape(len(x), KV_HEADS, groups + 2, -1)
    return made[:, :, :groups].reshape(len(x), HEADS, -1), made[:, :, -2], made[:, :, -1]


def _apart(layer: dict[str, Array], x: Array) -> tuple[Array, Array, Array]:
    q, k, v = (
        (x @ layer[f"self_attn.{n}_proj.weight"].T + layer[f"self_attn.{n}_proj.bias"]).reshape(
            len(x), -1, HIDDEN // HEADS
        )
        for n in "qkv"
    )
    return q, k, v


def _rotary(x: Array) -> Array:
    half = x.shape[-1] // 2
    angles = np.arange(len(x))[:, None, None] * BASE ** (-np.arange(half) / half)
    cos, sin = np.cos(angles), np.sin(angles)
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


def _attention(q: Array, k: Array, v: Array) -> Array:
    q, k = _rotary(q), _rotary(k)
    rows = []
    for head in range(HEADS):
        own = head // (HEADS // KV_HEADS)
        scores = q[:, head] @ k[:, own].T / np.sqrt(q.shape[-1])
        scores = np.where(np.tril(np.ones_like(scores)) > 0, scores, -np.inf)
        grown = np.exp(scores - scores.max(-1, keepdims=True))
        rows.append(grown / grown.sum(-1, keepdims=True) @ v[:, own])
    return np.concatenate(rows, -1)
