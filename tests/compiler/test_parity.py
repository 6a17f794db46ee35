"""Compiled models against the library that defines each, through the real runtime."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DistilBertConfig,
    DistilBertModel,
    LlamaConfig,
    LlamaForSequenceClassification,
    pipeline,
)

from poolc.compiler.recognize import recognize
from poolc.errors import ParityError, RemoteCodeRefused
from poolc.runtime.engine import Engine
from poolc.spec import PoolingType
from tests.compiler.conftest import CompileHere
from tests.compiler.folders import (
    MODES,
    TEXTS,
    add_dense,
    add_modules,
    causal,
    edit_json,
    roberta,
    sentence_transformer,
    set_pooling,
)
from tests.compiler.folders import (
    classifier as classifier_folder,
)
from tests.models import HIDDEN, MAX_LENGTH, byte_bpe, save_model, wordpiece, write_json

PAIRS = [(TEXTS[0], TEXTS[2]), (TEXTS[1], TEXTS[3]), (TEXTS[3], TEXTS[1]), (TEXTS[5], TEXTS[5])]
BOUND = 1e-5


def assert_close(found: Any, expected: Any) -> None:
    """Hold the bound of the parity gate."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= BOUND * max(1.0, float(np.abs(expected).max()))


def assert_logits(engine: Engine, folder: Path) -> None:
    """Compare with transformers' classifier in ``folder``, a text at a time."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = engine.classify(TEXTS, truncate=True, use_activation=False).probs
    with torch.inference_mode():
        for text, logits in zip(TEXTS, found, strict=True):
            features = tokenizer(text, return_tensors="pt", truncation=True, max_length=MAX_LENGTH)
            features.pop("token_type_ids", None)
            assert_close(logits, model(**features).logits[0].numpy())


def unit(vectors: Any) -> Any:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def library(folder: Path) -> Any:
    return SentenceTransformer(str(folder), device="cpu", local_files_only=True)


def test_every_pooling_and_a_chain_of_dense(tmp_path: Path, compile_here: CompileHere) -> None:
    folder = sentence_transformer(tmp_path / "model")
    set_pooling(folder, list(MODES.values()))
    add_dense(folder, "2_Dense", (6 * HIDDEN, 24), activation_function=nn.GELU())
    chain = {"activation_function": nn.Tanh(), "use_residual": True, "bias": False}
    add_dense(folder, "3_Dense", (24, 12), **chain)
    add_modules(folder, ("Dense", "2_Dense"), ("Dense", "3_Dense"), ("Normalize", "4_Normalize"))
    prompts = {"query": "find: ", "document": "title: "}
    settings = {"prompts": prompts, "default_prompt_name": "document"}
    write_json(folder / "config_sentence_transformers.json", settings)
    engine, model = Engine(compile_here(folder)), library(folder)
    assert engine.spec.pooling == tuple(MODES)
    assert_close(engine.embed(TEXTS, truncate=True), model.encode(TEXTS))
    plain = model.encode(TEXTS, prompt="")
    assert_close(engine.embed(TEXTS, truncate=True, prompt=""), plain)
    assert_close(engine.embed_query(TEXTS, truncate=True), model.encode_query(TEXTS))


def test_lower_cased_roberta(tmp_path: Path, compile_here: CompileHere) -> None:
    folder = roberta(tmp_path / "model")
    add_modules(folder)
    set_pooling(folder, "cls")
    settings = {"max_seq_length": 40, "do_lower_case": True}
    write_json(folder / "sentence_roberta_config.json", settings)
    texts = [*TEXTS, "THE QUICK Brown Fox"]
    engine = Engine(compile_here(folder))
    assert_close(engine.embed(texts, truncate=True), library(folder).encode(texts))


def test_plain_distilbert(tmp_path: Path, compile_here: CompileHere) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    sizes = {"dim": HIDDEN, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}
    config = DistilBertConfig(
        vocab_size=len(wordpiece(folder)), max_position_embeddings=MAX_LENGTH, **sizes
    )
    save_model(DistilBertModel(config), folder)
    artifact, model = compile_here(folder), library(folder)
    assert artifact.report()["parity"]["reference"] == "sentence-transformers"
    engine = Engine(artifact)
    # Sentence Transformers takes the mean and stops there.
    assert_close(engine.embed(TEXTS, truncate=True), model.encode(TEXTS))
    assert_close(engine.embed(TEXTS, truncate=True, normalize=True), unit(model.encode(TEXTS)))


def test_defaults_of_vllm(plain_bert: Path, compile_here: CompileHere) -> None:
    """Its rule is the first token of an encoder, at unit length (the page's table: normalised)."""
    engine = Engine(compile_here(plain_bert, defaults="vllm"))
    model, words = AutoModel.from_pretrained(plain_bert).eval(), AutoTokenizer
    ids = words.from_pretrained(plain_bert)(TEXTS[0], return_tensors="pt")
    with torch.inference_mode():
        first = model(**ids).last_hidden_state[0, 0].numpy()
    assert_close(engine.embed(TEXTS[:1])[0], unit(first))


def test_gate_sees_a_normalisation_that_the_library_does_not_have(
    plain_bert: Path, compile_here: CompileHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    def normalising(*arguments: Any) -> Any:
        found, words = recognize(*arguments)
        return replace(found, spec=replace(found.spec, normalize=True)), words

    monkeypatch.setattr("poolc.compiler.frontends.pytorch.recognize", normalising)
    with pytest.raises(ParityError, match="sentence_embedding"):
        compile_here(plain_bert)


def test_half_precision_weights(tmp_path: Path, compile_here: CompileHere) -> None:
    """The file's numbers, computed in fp32, as both libraries do when asked for fp32."""
    folder = sentence_transformer(tmp_path / "model")
    whole = AutoModelForSequenceClassification.from_pretrained(folder)
    whole.base_model.half().save_pretrained(folder)
    edit_json(folder / "config.json", dtype="float16")
    engine = Engine(compile_here(folder))
    model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})
    assert_close(engine.embed(TEXTS, truncate=True), model.encode(TEXTS))


def test_cross_encoder(cross_encoder: Engine, tiny_cross_encoder_source: Path) -> None:
    model = CrossEncoder(str(tiny_cross_encoder_source), device="cpu")
    left, right = map(list, zip(*PAIRS, strict=True))
    assert_close(cross_encoder.score(left, right, truncate=True), model.predict(PAIRS))
    raw = model.predict(PAIRS, activation_fn=nn.Identity())
    assert_close(cross_encoder.score(left, right, truncate=True, use_activation=False), raw)


def test_classifier(classifier: Engine, tiny_classifier_source: Path) -> None:
    ask = pipeline("text-classification", str(tiny_classifier_source), device="cpu", top_k=None)
    answers = ask(TEXTS, truncation=True)
    found = classifier.classify(TEXTS, truncate=True)
    by_name = [{entry["label"]: entry["score"] for entry in answer} for answer in answers]
    assert_close(found.probs, [[answer[name] for name in found.names] for answer in by_name])
    assert found.labels == [max(answer, key=lambda name: answer[name]) for answer in by_name]


def test_multi_label_classifier(tmp_path: Path, compile_here: CompileHere) -> None:
    folder = classifier_folder(
        tmp_path / "model", num_labels=3, problem_type="multi_label_classification"
    )
    engine = Engine(compile_here(folder))
    ask = pipeline("text-classification", str(folder), device="cpu", top_k=None)
    answers = ask(TEXTS, truncation=True)
    by_name = [{entry["label"]: entry["score"] for entry in answer} for answer in answers]
    found = engine.classify(TEXTS, truncate=True)
    assert_close(found.probs, [[answer[name] for name in found.names] for answer in by_name])


REMOTE_CODE = """
from transformers import BertConfig, BertModel

class CustomConfig(BertConfig):
    model_type = "custom"

class CustomModel(BertModel):
    config_class = CustomConfig

    def forward(self, *args, **kwargs):
        outputs = super().forward(*args, **kwargs)
        outputs.last_hidden_state = outputs.last_hidden_state * 2
        return outputs
"""


@pytest.mark.slow
def test_model_of_its_own_python(
    tmp_path: Path, compile_here: CompileHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With trust, the model's own class is what runs: its vectors are twice as long."""
    cache = "transformers.dynamic_module_utils.HF_MODULES_CACHE"
    monkeypatch.setattr(cache, str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", sys.path.copy())
    folder = sentence_transformer(tmp_path / "model")
    plain = library(folder).encode(TEXTS)
    (folder / "custom.py").write_text(REMOTE_CODE)
    auto_map = {"AutoConfig": "custom.CustomConfig", "AutoModel": "custom.CustomModel"}
    named = {"model_type": "custom", "architectures": ["CustomModel"]}
    edit_json(folder / "config.json", auto_map=auto_map, **named)
    with pytest.raises(RemoteCodeRefused):
        compile_here(folder)
    engine = Engine(compile_here(folder, trust_remote_code=True))
    assert_close(engine.embed(TEXTS, truncate=True), 2 * plain)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"is_causal": False}], ids=["causal", "both ways"])
def test_plain_causal_model(
    changes: dict[str, Any], tmp_path: Path, compile_here: CompileHere
) -> None:
    folder = causal(tmp_path / "model")
    edit_json(folder / "config.json", **changes)
    engine, model = Engine(compile_here(folder, convert="embed")), library(folder)
    assert (engine.spec.pooling == (PoolingType.LAST,)) is not bool(changes)
    texts = [text for text in TEXTS if len(text) < 100]
    assert_close(engine.embed(texts), model.encode(texts))


@pytest.mark.slow
def test_causal_classifier(tmp_path: Path, compile_here: CompileHere) -> None:
    """A decoder classifies at its last real token, which padding must not move."""
    from transformers import Qwen3Config, Qwen3ForSequenceClassification

    folder = tmp_path / "model"
    folder.mkdir()
    sizes = {"hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 4}
    heads = {"num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 64}
    vocabulary = len(wordpiece(folder))
    config = Qwen3Config(vocab_size=vocabulary, pad_token_id=0, num_labels=3, **sizes, **heads)
    save_model(Qwen3ForSequenceClassification(config), folder)
    engine = Engine(compile_here(folder, max_length=MAX_LENGTH))
    assert_logits(engine, folder)


def test_classifier_whose_padding_id_is_no_token(tmp_path: Path, compile_here: CompileHere) -> None:
    """Llama's first configurations say -1 for none, and the class takes the last position."""
    folder = tmp_path / "model"
    folder.mkdir()
    sizes = {"hidden_size": HIDDEN, "num_hidden_layers": 1, "num_attention_heads": 4}
    limits = {"intermediate_size": 64, "max_position_embeddings": MAX_LENGTH}
    config = LlamaConfig(vocab_size=len(byte_bpe(folder)), num_labels=2, **sizes, **limits)
    save_model(LlamaForSequenceClassification(config), folder, scale=0.1)
    edit_json(folder / "config.json", pad_token_id=-1)
    engine = Engine(compile_here(folder))
    assert_logits(engine, folder)
