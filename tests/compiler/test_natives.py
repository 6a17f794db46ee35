"""Checkpoints in their authors' layout: the same tensors and numbers as transformers' own.

``save_pretrained`` writes the tensors of these families as their authors do, so a folder in the
original layout is that one with the authors' config.json.
"""

from __future__ import annotations

import json
import shutil
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
from tests.compiler.conftest import CompileHere
from tests.compiler.folders import TEXTS
from tests.matrix.families import FAMILIES
from tests.models import HIDDEN, save_model, write_json, write_modules, write_pooling

BOUND = 1e-5
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


def native(folder: Path, name: str, **changes: Any) -> Any:
    """Save transformers' own model; return it."""
    folder.mkdir()
    config = FAMILIES[name].config(folder)
    config.update(changes)
    model = getattr(transformers, FAMILIES[name].backbone)(config)
    save_model(model, folder)
    write_modules(folder, ("Transformer", ""), ("Pooling", "1_Pooling"))
    write_pooling(folder, "mean_tokens")
    return model.eval()


def as_author(folder: Path, config: dict[str, Any]) -> None:
    size = json.loads((folder / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    write_json(folder / "config.json", {**config, "vocab_size": size})


def materialized(folder: Path, tmp_path: Path, **options: Any) -> Path:
    chosen, progress = make_options(**options), Progress(lambda event: None)
    found = source.fetch(str(folder), chosen, Store(tmp_path / "store"), progress)
    return source.materialize(found, None, chosen, tmp_path / "work", progress)


def loaded(folder: Path, tmp_path: Path, **options: Any) -> Any:
    ready = materialized(folder, tmp_path, **options)
    read_config(ready, trust_remote_code=False)
    return transformers.AutoModel.from_pretrained(ready).eval()


def assert_same(found: Any, expected: Any) -> None:
    ids = torch.arange(60).reshape(2, 30) % 50 + 5
    with torch.inference_mode():
        one, other = (model(input_ids=ids).last_hidden_state for model in (found, expected))
    assert float((one - other).abs().max()) <= BOUND * max(1.0, float(other.abs().max()))


def test_gte_new_impl(tmp_path: Path) -> None:
    """Frequencies are those of new-impl's NTKScalingRotaryEmbedding, in NumPy."""
    dim, factor = HIDDEN // 4, 8.0
    base = (20000 * factor) ** (np.arange(0, dim, 2) / dim)
    expected = native(
        tmp_path / "model", "gte", rope_parameters={"rope_type": "default", "rope_theta": 2e4}
    )
    expected.rotary_emb.inv_freq = torch.tensor(1 / base / factor ** (2 / dim)).float()
    as_author(tmp_path / "model", GTE)
    found = loaded(tmp_path / "model", tmp_path)
    assert type(found).__name__ == "GteModel"
    assert_same(found, expected)


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
    assert native_config({**JINA, "position_embedding_type": "absolute"}) is None


def test_flash_roberta_with_absolute_positions_is_still_refused(tmp_path: Path) -> None:
    native(tmp_path / "model", "jina-v3")
    foreign = {**JINA, "position_embedding_type": "absolute", "architectures": ["XLMRobertaLoRA"]}
    as_author(tmp_path / "model", foreign)
    ready = materialized(tmp_path / "model", tmp_path)
    with pytest.raises(RemoteCodeRefused, match="XLMRobertaLoRA of config"):
        read_config(ready, trust_remote_code=False)


def jina(folder: Path) -> dict[str, np.ndarray]:
    """Write jina-embeddings-v3's layout, and transformers' beside it; return the tensors."""
    native(folder, "jina-v3")
    # A copy, not a second one: training a Unigram tokenizer twice gives two.
    shutil.copytree(folder, folder.with_name("native"))
    as_author(folder, JINA)
    write_modules(folder, ("Transformer", ""), ("Pooling", "1_Pooling"))
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


@pytest.mark.parametrize("task", [None, "retrieval.query"])
def test_jina_v3_merges_one_adapter(task: str | None, tmp_path: Path) -> None:
    stacked = jina(tmp_path / "model")
    by_hand = merged_by_hand(stacked, task or "text-matching")
    save_file(by_hand, tmp_path / "native" / "model.safetensors", metadata={"format": "pt"})
    expected = transformers.AutoModel.from_pretrained(tmp_path / "native").eval()
    options = {"hf_overrides": {"jina_task": task}} if task else {}
    assert_same(loaded(tmp_path / "model", tmp_path, **options), expected)


def test_jina_v3_compiles_one_artifact_a_task(tmp_path: Path, compile_here: CompileHere) -> None:
    from sentence_transformers import SentenceTransformer

    stacked = jina(tmp_path / "model")
    by_hand = merged_by_hand(stacked, "separation")
    save_file(by_hand, tmp_path / "native" / "model.safetensors", metadata={"format": "pt"})
    artifact = compile_here(tmp_path / "model", hf_overrides={"jina_task": "separation"})
    expected = SentenceTransformer(str(tmp_path / "native"), device="cpu", local_files_only=True)
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
    model = native(tmp_path / "model", "jina-v3")
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
    below = tmp_path / "model" / "text_matching"
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "use_rslora": rslora}
    write_json(below / "adapter_config.json", settings)
    save_file(adapter, below / "adapter_model.safetensors")
    found = loaded(tmp_path / "model", tmp_path)
    model.load_state_dict(weights)
    assert_same(found, model)


def test_jina_v3_unknown_task(tmp_path: Path) -> None:
    jina(tmp_path / "model")
    with pytest.raises(InvalidOption) as caught:
        materialized(tmp_path / "model", tmp_path, hf_overrides={"jina_task": "poetry"})
    assert str(caught.value) == (
        "hf_overrides: jina_task is 'poetry'; this model has: retrieval.query, retrieval.passage, "
        "separation, classification, text-matching"
    )
