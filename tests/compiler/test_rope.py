"""rope_type dynamic, against the library that computes it from the length of each text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from transformers import (
    AutoConfig,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForSequenceClassification,
    LlamaModel,
)

from poolc.compiler.architecture import read_config
from poolc.compiler.rope import lower_dynamic
from poolc.runtime.engine import Engine
from tests.compiler.conftest import CompileHere
from tests.compiler.folders import TEXTS, edit_json
from tests.compiler.test_parity import assert_close, assert_logits
from tests.models import (
    HIDDEN,
    MAX_LENGTH,
    byte_bpe,
    save_model,
    write_json,
    write_modules,
    write_pooling,
)

DYNAMIC = {"type": "dynamic", "factor": 2.7}
SMALL = {**DYNAMIC, "original_max_position_embeddings": 16}


def llama(folder: Path, cls: Any, rope: dict[str, Any]) -> Path:
    folder.mkdir()
    sizes = {"hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 4}
    limits = {"intermediate_size": 64, "max_position_embeddings": MAX_LENGTH, "pad_token_id": 1}
    config = LlamaConfig(vocab_size=len(byte_bpe(folder)), num_labels=2, **sizes, **limits)
    save_model(cls(config), folder, scale=0.1)
    edit_json(folder / "config.json", rope_parameters=None, rope_theta=5000.0, rope_scaling=rope)
    assert AutoConfig.from_pretrained(folder).rope_parameters["rope_type"] == "dynamic"
    return folder


@pytest.mark.parametrize("rope", [DYNAMIC, SMALL])
def test_embedding(rope: dict[str, Any], tmp_path: Path, compile_here: CompileHere) -> None:
    folder = llama(tmp_path / "model", LlamaModel, rope)
    write_modules(folder, ("Transformer", ""), ("Pooling", "1_Pooling"))
    write_pooling(folder, "lasttoken")
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": MAX_LENGTH})
    engine = Engine(compile_here(folder))
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    lengths = [len(engine.tokenize(text)) for text in TEXTS if len(text) < 100]
    assert min(lengths) < 16 < max(lengths)
    expected = np.concatenate([model.encode([text]) for text in TEXTS])
    assert_close(engine.embed(TEXTS, truncate=True), expected)


def test_classifier(tmp_path: Path, compile_here: CompileHere) -> None:
    folder = llama(tmp_path / "model", LlamaForSequenceClassification, DYNAMIC)
    engine = Engine(compile_here(folder))
    assert_logits(engine, folder)


def test_by_kind_of_layer() -> None:
    plain = {"rope_type": "default", "rope_theta": 10.0}
    scaled = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 20.0}
    config = Gemma3TextConfig(
        rope_parameters={"full_attention": scaled, "sliding_attention": plain}
    )
    assert lower_dynamic(config).rope_parameters == {
        "full_attention": {"rope_type": "default", "rope_theta": 20.0},
        "sliding_attention": plain,
    }


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "linear", "factor": 2.0},
        {"rope_type": "dynamic", "factor": 2.0, "alpha": 1000.0},
    ],
)
def test_others_stay(rope: dict[str, Any], tmp_path: Path) -> None:
    LlamaConfig(rope_parameters={**rope, "rope_theta": 10.0}).save_pretrained(tmp_path)
    read = read_config(tmp_path, trust_remote_code=False).rope_parameters
    assert read == AutoConfig.from_pretrained(tmp_path).rope_parameters
