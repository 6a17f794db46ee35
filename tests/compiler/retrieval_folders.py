"""Folders of sparse and multi-vector models, written by the libraries that define them.

``tests/models.py`` has the older layouts, and BGE-M3.
"""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import MultiVectorEncoder, SparseEncoder
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from sentence_transformers.sparse_encoder.modules import SpladePooling
from torch import nn
from transformers import BertForMaskedLM, BertModel

from tests.compiler.folders import encoder
from tests.models import (
    DOCUMENT_LENGTH,
    HIDDEN,
    TOKEN_DIM,
    bert_config,
    save_model,
    wordpiece,
    write_json,
)


def masked_lm(folder: Path) -> Path:
    """A plain BERT with its language model head."""
    folder.mkdir(parents=True, exist_ok=True)
    save_model(BertForMaskedLM(bert_config(len(wordpiece(folder)))), folder, seed=4)
    return folder


def splade(folder: Path, pooling: Any = "max", activation: Any = "relu", **options: Any) -> Path:
    """SPLADE as the installed Sentence Transformers saves it."""
    trunk = Transformer(str(masked_lm(folder / "trunk")), transformer_task="fill-mask")
    head = SpladePooling(pooling, activation)
    SparseEncoder(modules=[trunk, head], device="cpu", **options).save(str(folder / "model"))
    return folder / "model"


def token_dense(*sizes: int, **options: Any) -> Dense:
    """A projection of every token; unless told, as ColBERT's: no bias, no activation."""
    torch.manual_seed(sum(sizes))
    plain = {"bias": False, "activation_function": nn.Identity()}
    return Dense(*sizes, module_input_name="token_embeddings", **{**plain, **options})


def multi_vector(
    folder: Path,
    *layers: Dense,
    mask: MultiVectorMask | None = None,
    normalize: bool = True,
    trunk: dict[str, Any] | None = None,
    **options: Any,
) -> Path:
    """A MultiVectorEncoder as the installed Sentence Transformers saves it."""
    lengths = {"document_length": DOCUMENT_LENGTH, **(trunk or {})}
    modules: list[nn.Module] = [Transformer(str(encoder(folder / "trunk")), **lengths)]
    modules += layers or (token_dense(HIDDEN, TOKEN_DIM),)
    modules.append(mask or MultiVectorMask(list(string.punctuation)))
    modules += [Normalize(module_input_name="token_embeddings")] if normalize else []
    MultiVectorEncoder(modules=modules, device="cpu", **options).save(str(folder / "model"))
    return folder / "model"


def stanford(folder: Path, **metadata: Any) -> Path:
    """A ColBERT as Stanford's library saves it: markers in the vocabulary, one weights file."""
    folder.mkdir(parents=True, exist_ok=True)
    size = len(wordpiece(folder))
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["model"]["vocab"] |= {"[unused0]": size, "[unused1]": size + 1}
    write_json(folder / "tokenizer.json", tokenizer)
    save_model(BertModel(bert_config(size + 2)), folder, seed=7)
    weights = load_file(folder / "model.safetensors")
    tensors = {f"bert.{name}": value for name, value in weights.items()}
    generator = torch.Generator().manual_seed(7)
    tensors["linear.weight"] = torch.randn((TOKEN_DIM, HIDDEN), generator=generator)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    write_json(folder / "config.json", {**config, "architectures": ["HF_ColBERT"]})
    if metadata:
        write_json(folder / "artifact.metadata", metadata)
    return folder
