"""Jina-BERT in its authors' two layouts, and the same in NumPy.

Names and shapes are those of the published checkpoints; the mathematics is that of
text-embeddings-inference (jina.rs, jina_code.rs and alibi.rs). Nothing of poolc's class takes part.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from tests.models import MAX_LENGTH, TOKEN_DIM, wordpiece, write_json

Array = npt.NDArray[Any]
LAYERS, INNER, HEAD_SIZE = 2, 40, 8
GATED, QK_POST_NORM = "jina-bert-implementation", "jina-bert-v2-qk-post-norm"
_EPS = 1e-12
_SCALE = 0.2  # larger, and numbers in fp32 are as far from those in fp64 as the bound


@dataclass(frozen=True, slots=True)
class Layout:
    """What differs between published checkpoints."""

    repository: str = GATED
    heads: int = 4
    gate: str = "geglu"
    prefix: str = "bert."
    architecture: str = "JinaBertForMaskedLM"
    labels: int = 1

    @property
    def hidden(self) -> int:
        return HEAD_SIZE * self.heads


def author(folder: Path, layout: Layout, **changes: Any) -> Path:
    """A folder as its authors publish it: Python of their own, which is not there, and weights."""
    folder.mkdir(parents=True, exist_ok=True)
    size = len(wordpiece(folder))
    config = {
        "architectures": [layout.architecture],
        "attn_implementation": None,
        "auto_map": {
            "AutoConfig": f"jinaai/{layout.repository}--configuration_bert.JinaBertConfig",
            "AutoModel": f"jinaai/{layout.repository}--modeling_bert.JinaBertModel",
        },
        "emb_pooler": "mean",
        "feed_forward_type": layout.gate,
        "hidden_act": "gelu",
        "hidden_size": layout.hidden,
        "id2label": {str(i): f"LABEL_{i}" for i in range(layout.labels)},
        "intermediate_size": INNER,
        "layer_norm_eps": _EPS,
        "max_position_embeddings": 8192,
        "model_max_length": 8192,
        "model_type": "bert",
        "num_attention_heads": layout.heads,
        "num_hidden_layers": LAYERS,
        "pad_token_id": 0,
        "position_embedding_type": "alibi",
        "type_vocab_size": 2,
        "vocab_size": size,
    }
    write_json(folder / "config.json", {**config, **changes})
    shapes = _shapes(layout, size)
    save_file(_random(shapes), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _shapes(layout: Layout, vocabulary: int) -> dict[str, tuple[int, ...]]:
    size, trunk = layout.hidden, layout.prefix
    shapes: dict[str, tuple[int, ...]] = {
        f"{trunk}embeddings.word_embeddings.weight": (vocabulary, size),
        f"{trunk}embeddings.token_type_embeddings.weight": (2, size),
        **_norm(f"{trunk}embeddings.LayerNorm", size),
    }
    for i in range(LAYERS):
        layer = f"{trunk}encoder.layer.{i}"
        for name in ("query", "key", "value"):
            shapes |= _linear(f"{layer}.attention.self.{name}", size, size)
        shapes |= _linear(f"{layer}.attention.output.dense", size, size)
        norms = ["attention.output.LayerNorm"]
        if layout.repository == GATED:
            up, down, norms = "gated_layers", "wo", [*norms, "mlp.layernorm"]
        else:
            up, down = "up_gated_layer", "down_layer"
            norms += ["layer_norm_1", "layer_norm_2"]
            norms += [f"attention.self.layer_norm_{side}" for side in "qk"]
        shapes[f"{layer}.mlp.{up}.weight"] = (2 * INNER, size)
        shapes |= _linear(f"{layer}.mlp.{down}", size, INNER)
        for name in norms:
            shapes |= _norm(f"{layer}.{name}", size)
    return shapes | _head_shapes(layout, vocabulary)


def _head_shapes(layout: Layout, vocabulary: int) -> dict[str, tuple[int, ...]]:
    size, name = layout.hidden, layout.architecture
    if name == "HF_ColBERT":
        return {"linear.weight": (TOKEN_DIM, size)}
    if name.endswith("MaskedLM"):
        head = "cls.predictions"
        shapes = {f"{head}.bias": (vocabulary,), **_norm(f"{head}.transform.LayerNorm", size)}
        return shapes | _linear(f"{head}.transform.dense", size, size)
    shapes = _linear("classifier", layout.labels, size) if "For" in name else {}
    if name.endswith("SequenceClassification"):
        shapes |= _linear(f"{layout.prefix}pooler.dense", size, size)
    return shapes


def _linear(name: str, rows: int, columns: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def _norm(name: str, size: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}


def _random(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """Of a seed a tensor, for training a tokenizer twice gives vocabularies of two sizes."""
    tensors = {}
    for name, shape in shapes.items():
        noise = _SCALE * np.random.default_rng(crc32(name.encode())).standard_normal(shape)
        gain = "norm" in name.lower() and name.endswith("weight")
        tensors[name] = (1 + 0.1 * noise if gain else noise).astype(np.float32)
    return tensors


class Numpy:
    """The model of a folder, one text or pair at a time, in float64."""

    def __init__(self, folder: Path) -> None:
        self.config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "model.safetensors")
        self.weights = {
            name.removeprefix("bert."): value.astype(np.float64) for name, value in tensors.items()
        }
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(MAX_LENGTH)

    def hidden(self, item: Any) -> Array:
        """Return the last hidden states, [tokens, hidden]."""
        texts = (item,) if isinstance(item, str) else item
        encoded = self.tokenizer.encode(*texts)
        words, types = (
            self.weights[f"embeddings.{name}_embeddings.weight"] for name in ("word", "token_type")
        )
        x = self._normed(words[encoded.ids] + types[encoded.type_ids], "embeddings.LayerNorm")
        for i in range(LAYERS):
            x = self._layer(x, f"encoder.layer.{i}")
        return x

    def logits(self, item: Any) -> Array:
        """Return the answer of the classifier over the pooler."""
        pooled = np.tanh(self.linear(self.hidden(item)[0], "pooler.dense"))
        return self.linear(pooled, "classifier")

    def words(self, item: Any) -> Array:
        """Return the language model's logits, [tokens, vocabulary]."""
        head, table = "cls.predictions", self.weights["embeddings.word_embeddings.weight"]
        x = gelu(self.linear(self.hidden(item), f"{head}.transform.dense"))
        x = self._normed(x, f"{head}.transform.LayerNorm")
        return np.asarray(x @ table.T + self.weights[f"{head}.bias"])

    def linear(self, x: Array, name: str) -> Array:
        """Apply a layer, with a bias where it has one."""
        return np.asarray(
            x @ self.weights[f"{name}.weight"].T + self.weights.get(f"{name}.bias", 0.0)
        )

    def _layer(self, x: Array, name: str) -> Array:
        post = self._normed(
            self.linear(
                self._attention(x, f"{name}.attention.self"), f"{name}.attention.output.dense"
            )
            + x,
            f"{name}.attention.output.LayerNorm",
        )
        act = gelu if self.config["feed_forward_type"] == "geglu" else relu
        if f"{name}.mlp.wo.weight" in self.weights:
            made = self.linear(post, f"{name}.mlp.gated_layers")
            gated = act(made[:, :INNER]) * made[:, INNER:]
            return self._normed(
                self.linear(gated, f"{name}.mlp.wo") + post, f"{name}.mlp.layernorm"
            )
        x = self._normed(x + post, f"{name}.layer_norm_1")
        made = self.linear(x, f"{name}.mlp.up_gated_layer")
        gated = made[:, :INNER] * act(made[:, INNER:])
        return self._normed(
            self.linear(gated, f"{name}.mlp.down_layer") + x, f"{name}.layer_norm_2"
        )

    def _attention(self, x: Array, name: str) -> Array:
        q, k, v = (self.linear(x, f"{name}.{part}") for part in ("query", "key", "value"))
        if f"{name}.layer_norm_q.weight" in self.weights:
            q, k = self._normed(q, f"{name}.layer_norm_q"), self._normed(k, f"{name}.layer_norm_k")
        places, rows = np.arange(len(x)), []
        for head, slope in enumerate(slopes(self.config["num_attention_heads"])):
            own = slice(HEAD_SIZE * head, HEAD_SIZE * (head + 1))
            scores = q[:, own] @ k[:, own].T / math.sqrt(HEAD_SIZE)
            grown = np.exp(scores - slope * np.abs(places[:, None] - places))
            rows.append(grown / grown.sum(-1, keepdims=True) @ v[:, own])
        return np.concatenate(rows, -1)

    def _normed(self, x: Array, name: str) -> Array:
        apart = x - x.mean(-1, keepdims=True)
        unit = apart / np.sqrt((apart * apart).mean(-1, keepdims=True) + _EPS)
        return np.asarray(unit * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"])


def slopes(heads: int) -> list[float]:
    """2^(-8 i / n) for n heads, a power of two; others take every other one of 2n behind those."""
    power = 1 << (heads.bit_length() - 1)
    first = [2 ** (-8 * (i + 1) / power) for i in range(power)]
    return first + [2 ** (-4 * (2 * i + 1) / power) for i in range(heads - power)]


def gelu(x: Array) -> Array:
    """The exact one."""
    return np.asarray(x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2))))


def relu(x: Array) -> Array:
    return np.maximum(x, 0.0)
