"""Model folders as authors leave them, written by the libraries that define the formats.

Every builder returns the folder. Weights are seeded and random; recognition needs none.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from sentence_transformers.sentence_transformer.modules import Dense, Pooling
from transformers import (
    BertForSequenceClassification,
    BertModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    RobertaConfig,
    RobertaModel,
)

from poolc.spec import PoolingType
from tests.models import (
    HIDDEN,
    MAX_LENGTH,
    bert_config,
    byte_bpe,
    save_model,
    wordpiece,
    write_json,
    write_modules,
    write_pooling,
)

# Sentence Transformers' names of the pooling modes, as versions 5 and 6 write them.
MODES = {
    PoolingType.CLS: "cls",
    PoolingType.MEAN: "mean",
    PoolingType.MAX: "max",
    PoolingType.LAST: "lasttoken",
    PoolingType.MEAN_SQRT_LEN: "mean_sqrt_len_tokens",
    PoolingType.WEIGHTED_MEAN: "weightedmean",
}
TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "a",
    "Réserver une table à Zürich, s'il vous plaît",
    "a river runs through the old town " * 20,
    "[CLS] names a token </s>",
    "東京の天気は晴れ 👩‍👩‍👧",
]


def encoder(folder: Path, **config: Any) -> Path:
    """A plain BERT."""
    folder.mkdir(parents=True, exist_ok=True)
    save_model(BertModel(bert_config(len(wordpiece(folder)), **config)), folder)
    return folder


def classifier(folder: Path, **config: Any) -> Path:
    """A BERT with a classification head."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = wordpiece(folder)
    save_model(BertForSequenceClassification(bert_config(len(tokenizer), **config)), folder)
    return folder


def roberta(folder: Path, **config: Any) -> Path:
    """A plain RoBERTa with a byte-level BPE tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {
        "hidden_size": HIDDEN,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": MAX_LENGTH + 2,
        "type_vocab_size": 1,
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
    }
    vocab_size = len(byte_bpe(folder))
    save_model(RobertaModel(RobertaConfig(vocab_size=vocab_size, **{**sizes, **config})), folder)
    return folder


def causal(folder: Path, **config: Any) -> Path:
    """A Qwen3 that generates text."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {
        "hidden_size": HIDDEN,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "intermediate_size": 64,
        "max_position_embeddings": MAX_LENGTH,
        "pad_token_id": 0,
    }
    vocab_size = len(wordpiece(folder))
    save_model(Qwen3ForCausalLM(Qwen3Config(vocab_size=vocab_size, **{**sizes, **config})), folder)
    return folder


def sentence_transformer(folder: Path, *modes: str) -> Path:
    """A BERT with a Pooling module, as versions 2 to 4 save it (flags without their prefix)."""
    encoder(folder)
    write_modules(folder, ("Transformer", ""), ("Pooling", "1_Pooling"))
    write_pooling(folder, *modes or ("mean_tokens",))
    return folder


def add_modules(folder: Path, *kinds: tuple[str, str]) -> None:
    """List more modules behind Transformer and Pooling."""
    write_modules(folder, ("Transformer", ""), ("Pooling", "1_Pooling"), *kinds)


def set_pooling(folder: Path, modes: str | list[str]) -> None:
    """Write the Pooling module as the installed Sentence Transformers does."""
    (folder / "1_Pooling").mkdir(exist_ok=True)
    Pooling(HIDDEN, pooling_mode=modes).save(str(folder / "1_Pooling"))


def add_dense(folder: Path, path: str, sizes: tuple[int, int], **options: Any) -> Any:
    """Save a Dense module, by Sentence Transformers, and return it."""
    torch.manual_seed(len(path) + sum(sizes))
    dense = Dense(*sizes, **options)
    (folder / path).mkdir()
    dense.save(str(folder / path))
    return dense.eval()


def edit_json(path: Path, **changes: Any) -> None:
    """Change keys of a JSON object; None removes one."""
    merged = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    write_json(path, {key: value for key, value in merged.items() if value is not None})
