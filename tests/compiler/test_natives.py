"""Checkpoints in their authors' layout: the same tensors and numbers as transformers' own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file

from poolc.api import make_options
from poolc.compiler import source
from poolc.compiler.architecture import read_config
from poolc.compiler.events import Progress
from poolc.compiler.natives import native_config
from poolc.errors import InvalidOption, RemoteCodeRefused, UnsupportedModel
from poolc.model_cache.store import Store
from poolc.runtime.engine import Engine
from tests.compiler.author_layouts import (
    GTE,
    JINA,
    NOMIC,
    as_author,
    gte_frequencies,
    jina,
    jina_native,
    jina_peft,
    native,
)
from tests.compiler.conftest import CompileHere
from tests.compiler.folders import TEXTS
from tests.models import save_model, write_modules

BOUND = 1e-5


def materialized(folder: Path, tmp_path: Path, **options: Any) -> Path:
    chosen, progress = make_options(**options), Progress(lambda event: None)
    found = source.fetch(str(folder), chosen, Store(tmp_path / "store"), progress)
    return source.materialize(found, None, chosen, tmp_path / "work", progress)


def loaded(folder: Path, tmp_path: Path, path: str = "", **options: Any) -> Any:
    ready = materialized(folder, tmp_path, **options) / path
    read_config(ready, trust_remote_code=False)
    return transformers.AutoModel.from_pretrained(ready).eval()


def assert_same(found: Any, expected: Any) -> None:
    ids = torch.arange(60).reshape(2, 30) % 50 + 5
    with torch.inference_mode():
        one, other = (model(input_ids=ids).last_hidden_state for model in (found, expected))
    assert float((one - other).abs().max()) <= BOUND * max(1.0, float(other.abs().max()))


def test_gte_new_impl(tmp_path: Path) -> None:
    rope = {"rope_type": "default", "rope_theta": 2e4}
    expected = native(tmp_path / "model", "gte", rope_parameters=rope)
    expected.rotary_emb.inv_freq = gte_frequencies()
    as_author(tmp_path / "model", GTE)
    found = loaded(tmp_path / "model", tmp_path)
    assert type(found).__name__ == "GteModel"
    assert_same(found, expected)


def below(root: Path, path: str) -> Path:
    """Give a model whose transformer was built in a folder of its own the files around it."""
    (root / path / "modules.json").unlink()
    (root / path / "1_Pooling").rename(root / "1_Pooling")
    write_modules(root, ("Transformer", path), ("Pooling", "1_Pooling"))
    return root


@pytest.mark.parametrize(("name", "config"), [("gte", GTE), ("nomic-bert", NOMIC)])
def test_transformer_in_a_folder_of_its_own(
    name: str, config: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    folder = tmp_path / "model" / "0_Transformer"
    rope = {"rope_type": "default", "rope_theta": 1e3}
    expected = native(folder, name, rope_parameters=rope)
    as_author(folder, {**config, "rope_theta": 1e3, "rope_scaling": None})
    below(tmp_path / "model", "0_Transformer")
    assert_same(loaded(tmp_path / "model", tmp_path, "0_Transformer"), expected)


def test_jina_v3_in_a_folder_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    folder = tmp_path / "model" / "0_Transformer"
    jina(folder)
    by_hand = jina_native(folder, tmp_path / "native", "text-matching")
    expected = transformers.AutoModel.from_pretrained(by_hand).eval()
    below(tmp_path / "model", "0_Transformer")
    assert_same(loaded(tmp_path / "model", tmp_path, "0_Transformer"), expected)


def test_gte_under_the_name_that_transformers_has(tmp_path: Path) -> None:
    """snowflake-arctic-embed-m-v2.0 brings a copy of the code; its settings are the authors'."""
    rope = {"rope_type": "default", "rope_theta": 2e4}
    expected = native(tmp_path / "model", "gte", rope_parameters=rope)
    expected.rotary_emb.inv_freq = gte_frequencies()
    code = {"AutoModel": "modeling_hf_alibaba_nlp_gte.GteModel"}
    named = {"model_type": "gte", "architectures": ["GteModel"], "auto_map": code}
    as_author(tmp_path / "model", {**GTE, **named})
    assert_same(loaded(tmp_path / "model", tmp_path), expected)


def test_gte_classifier_in_the_authors_layout(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    native(folder, "gte")
    config = transformers.GteConfig.from_pretrained(folder, num_labels=1)
    expected = transformers.GteForSequenceClassification(config)
    save_model(expected, folder)
    tensors = load_file(folder / "model.safetensors")
    renamed = {name.replace("gte.", "new."): value for name, value in tensors.items()}
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    plain = {**GTE, "rope_theta": 160000, "rope_scaling": None, "num_labels": 1}
    as_author(folder, {**plain, "architectures": ["NewForSequenceClassification"]})
    ready = materialized(folder, tmp_path)
    found = transformers.AutoModelForSequenceClassification.from_pretrained(ready).eval()
    ids = torch.arange(20).reshape(2, 10) + 5
    with torch.inference_mode():
        logits, wanted = (model(input_ids=ids).logits for model in (found, expected.eval()))
    np.testing.assert_allclose(logits.numpy(), wanted.numpy(), atol=1e-5)


def test_nomic_in_the_authors_layout(tmp_path: Path) -> None:
    expected = native(tmp_path / "model", "nomic-bert")
    as_author(tmp_path / "model", NOMIC)
    assert_same(loaded(tmp_path / "model", tmp_path), expected)


def test_nomic_with_dynamic_scaling_stops_where_it_starts() -> None:
    translated = native_config({**NOMIC, "rotary_scaling_factor": 2})
    assert translated is not None
    assert translated["max_position_embeddings"] == 48


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        (GTE, {"layer_norm_type": "rms_norm"}, "layer_norm_type is 'rms_norm'; transformers'"),
        (GTE, {"rope_scaling": {"type": "yarn"}}, "rope_scaling is {'type': 'yarn'}; poolc reads"),
        (NOMIC, {"moe_every_n_layers": 2}, "moe_every_n_layers is 2; transformers'"),
        (NOMIC, {"prenorm": True}, "prenorm is True; transformers' class of this model has False"),
    ],
)
def test_native_config_refuses(
    config: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UnsupportedModel, match=message):
        native_config({**config, **changes})


def test_native_config_leaves_others_alone() -> None:
    assert native_config({"model_type": "bert"}) is None
    assert native_config({**NOMIC, "n_embd": 1, "model_type": "gpt2"}) is None
    assert native_config({**GTE, "model_type": "gte", "rope_parameters": {}}) is None
    assert native_config({**JINA, "position_embedding_type": "absolute"}) is None


def test_flash_roberta_with_absolute_positions_is_still_refused(tmp_path: Path) -> None:
    native(tmp_path / "model", "jina-v3")
    foreign = {**JINA, "position_embedding_type": "absolute", "architectures": ["XLMRobertaLoRA"]}
    as_author(tmp_path / "model", foreign)
    ready = materialized(tmp_path / "model", tmp_path)
    with pytest.raises(RemoteCodeRefused, match="XLMRobertaLoRA of config"):
        read_config(ready, trust_remote_code=False)


@pytest.mark.parametrize("task", [None, "retrieval.query"])
def test_jina_v3_merges_one_adapter(task: str | None, tmp_path: Path) -> None:
    jina(tmp_path / "model")
    by_hand = jina_native(tmp_path / "model", tmp_path / "native", task or "text-matching")
    expected = transformers.AutoModel.from_pretrained(by_hand).eval()
    options: dict[str, Any] = {"hf_overrides": {"jina_task": task}} if task else {}
    assert_same(loaded(tmp_path / "model", tmp_path, **options), expected)


def test_jina_v3_compiles_one_artifact_a_task(tmp_path: Path, compile_here: CompileHere) -> None:
    from sentence_transformers import SentenceTransformer

    jina(tmp_path / "model")
    by_hand = jina_native(tmp_path / "model", tmp_path / "native", "separation")
    artifact = compile_here(tmp_path / "model", hf_overrides={"jina_task": "separation"})
    expected = SentenceTransformer(str(by_hand), device="cpu", local_files_only=True)
    found = Engine(artifact).embed(TEXTS, truncate=True)
    for row, text in zip(found, TEXTS, strict=True):
        wanted = expected.encode([text])[0]
        assert np.abs(row - wanted).max() <= BOUND * max(1.0, np.abs(wanted).max())
    other = compile_here(tmp_path / "model")
    origins = [found.manifest.spec.origins["jina_task"] for found in (artifact, other)]
    assert origins == ["--hf-overrides: jina_task separation", "default of Jina v3: text-matching"]
    assert other.manifest.space_id != artifact.manifest.space_id
    assert not np.allclose(Engine(other).embed(TEXTS, truncate=True), found, atol=1e-3)


@pytest.mark.parametrize("rslora", [False, True])
def test_jina_v3_merges_an_adapter_of_peft(rslora: bool, tmp_path: Path) -> None:
    expected = jina_peft(tmp_path / "model", rslora=rslora)
    assert_same(loaded(tmp_path / "model", tmp_path), expected)


def test_jina_v3_unknown_task(tmp_path: Path) -> None:
    jina(tmp_path / "model")
    with pytest.raises(InvalidOption) as caught:
        materialized(tmp_path / "model", tmp_path, hf_overrides={"jina_task": "poetry"})
    assert str(caught.value) == (
        "hf_overrides: jina_task is 'poetry'; this model has: retrieval.query, retrieval.passage, "
        "separation, classification, text-matching"
    )
