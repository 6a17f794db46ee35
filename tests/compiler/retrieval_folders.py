"""Folders of sparse, multi-vector and hybrid models, written by the libraries that define them."""

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
from transformers import BertForMaskedLM, BertModel, XLMRobertaConfig, XLMRobertaModel

from tests.compiler.folders import encoder
from tests.models import (
    HIDDEN,
    MAX_LENGTH,
    bert_config,
    byte_bpe,
    save_model,
    wordpiece,
    write_json,
)

DIM = 16
QUERY_LENGTH = 12
DOCUMENT_LENGTH = 40


def masked_lm(folder: Path, **config: Any) -> Path:
    """A plain BERT with its language model head."""
    folder.mkdir(parents=True, exist_ok=True)
    save_model(BertForMaskedLM(bert_config(len(wordpiece(folder)), **config)), folder, seed=4)
    return folder


def splade(folder: Path, pooling: str = "max", activation: str = "relu", **options: Any) -> Path:
    """SPLADE as the installed Sentence Transformers saves it."""
    trunk = Transformer(str(masked_lm(folder / "trunk")), transformer_task="fill-mask")
    head = SpladePooling(pooling, activation)
    SparseEncoder(modules=[trunk, head], device="cpu", **options).save(str(folder / "model"))
    return folder / "model"


def legacy_splade(folder: Path) -> Path:
    """SPLADE as Sentence Transformers 5 saved it."""
    masked_lm(folder)
    kinds = ("MLMTransformer", "SpladePooling")
    modules = [
        {
            "idx": i,
            "name": str(i),
            "path": path,
            "type": f"sentence_transformers.sparse_encoder.models.{kind}",
        }
        for i, (kind, path) in enumerate(zip(kinds, ("", "1_SpladePooling"), strict=True))
    ]
    write_json(folder / "modules.json", modules)
    write_json(folder / "1_SpladePooling" / "config.json", {"pooling_strategy": "max"})
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": MAX_LENGTH})
    return folder


def token_dense(sizes: tuple[int, int] = (HIDDEN, DIM), **options: Any) -> Dense:
    """A projection of every token."""
    torch.manual_seed(sum(sizes))
    return Dense(*sizes, module_input_name="token_embeddings", **options)


def multi_vector(
    folder: Path,
    expansion: dict[str, Any] | None = None,
    mask: MultiVectorMask | None = None,
    *,
    chain: tuple[Dense, ...] = (),
    normalize: bool = True,
    **options: Any,
) -> Path:
    """A MultiVectorEncoder as the installed Sentence Transformers saves it."""
    trunk = Transformer(
        str(encoder(folder / "trunk")),
        document_length=DOCUMENT_LENGTH,
        query_expansion=expansion,  # type: ignore[arg-type]
    )
    layers = chain or (token_dense(bias=False, activation_function=nn.Identity()),)
    modules: list[nn.Module] = [trunk, *layers, mask or MultiVectorMask(list(string.punctuation))]
    modules += [Normalize(module_input_name="token_embeddings")] if normalize else []
    MultiVectorEncoder(modules=modules, device="cpu", **options).save(str(folder / "model"))
    return folder / "model"


def pylate(folder: Path, **settings: Any) -> Path:
    """A ColBERT as PyLate saves it: markers that its tokenizer knows, Transformer and Dense."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = wordpiece(folder)
    tokenizer.add_tokens(["[Q] ", "[D] "])
    tokenizer.save_pretrained(folder)
    save_model(BertModel(bert_config(len(tokenizer))), folder)
    dense = token_dense(bias=False, activation_function=nn.Identity())
    (folder / "1_Dense").mkdir()
    dense.save(str(folder / "1_Dense"))
    config = dense.get_config_dict()
    kept = ("in_features", "out_features", "bias", "activation_function")
    write_json(folder / "1_Dense" / "config.json", {key: config[key] for key in kept})
    types = ("sentence_transformers.models.Transformer", "pylate.models.Dense.Dense")
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": kind}
        for i, (kind, path) in enumerate(zip(types, ("", "1_Dense"), strict=True))
    ]
    write_json(folder / "modules.json", modules)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": DOCUMENT_LENGTH - 1})
    defaults = {
        "model_type": "ColBERT",
        "prompts": {},
        "similarity_fn_name": "MaxSim",
        "query_prefix": "[Q] ",
        "document_prefix": "[D] ",
        "query_length": QUERY_LENGTH,
        "document_length": DOCUMENT_LENGTH,
        "attend_to_expansion_tokens": False,
        "skiplist_words": list(string.punctuation),
    }
    write_json(folder / "config_sentence_transformers.json", {**defaults, **settings})
    return folder


def stanford(folder: Path, **metadata: Any) -> Path:
    """A ColBERT as Stanford's library saves it: markers in the vocabulary, one weights file."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = wordpiece(folder)
    vocabulary = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    size = len(tokenizer)
    vocabulary["model"]["vocab"] |= {"[unused0]": size, "[unused1]": size + 1}
    (folder / "tokenizer.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    save_model(BertModel(bert_config(size + 2)), folder)
    weights = load_file(folder / "model.safetensors")
    tensors = {f"bert.{name}": value for name, value in weights.items()}
    torch.manual_seed(5)
    tensors["linear.weight"] = torch.randn(DIM, HIDDEN)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    write_json(folder / "config.json", {**config, "architectures": ["HF_ColBERT"]})
    if metadata:
        write_json(folder / "artifact.metadata", metadata)
    return folder


def bge_m3(folder: Path, *, heads: tuple[str, ...] = ("colbert", "sparse")) -> Path:
    """An XLM-RoBERTa with BGE-M3's two heads as pickles beside its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    config = XLMRobertaConfig(
        vocab_size=len(byte_bpe(folder)),
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=MAX_LENGTH + 2,
        type_vocab_size=1,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
    )
    save_model(XLMRobertaModel(config), folder, seed=6)
    torch.manual_seed(7)
    sizes = {"colbert": DIM, "sparse": 1}
    for head in heads:
        torch.save(nn.Linear(HIDDEN, sizes[head]).state_dict(), folder / f"{head}_linear.pt")
    return folder
