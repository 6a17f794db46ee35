"""``--hf-overrides``: keys that somebody reads, and whose word a choice is then."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from poolc.compiler.overrides import attributed, check_overrides
from poolc.errors import InvalidOption
from poolc.spec import Activation, PoolingType
from tests.compiler.conftest import Recognise
from tests.compiler.folders import edit_json, encoder

Source = Callable[[str], Path]
BERT = {"model_type": "bert", "own_key": 1}


@pytest.mark.parametrize(
    "overrides",
    [
        {"own_key": 2},
        {"hidden_act": "relu", "num_labels": 2, "id2label": {"0": "a"}, "architectures": ["X"]},
        {"problem_type": "regression", "torch_dtype": "float32", "rope_scaling": None},
        {"is_matryoshka": True, "matryoshka_dimensions": [8], "is_causal": False},
        {"classifier_from_token": ["a"], "method": "m", "is_original_qwen3_reranker": True},
        {"jina_task": "x", "sentence_transformers": {"activation_fn": "y"}},
        {"head_dtype": "float32", "use_sep_token": True, "use_pad_token": True},
        {"model_type": "modernbert", "classifier_pooling": "mean", "local_attention": 8},
    ],
)
def test_known_keys(overrides: Any) -> None:
    assert check_overrides(BERT, overrides) == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"is_matryosha": True}, "no key 'is_matryosha'; did you mean is_matryoshka?"),
        ({"own_kee": 1}, "no key 'own_kee'; did you mean own_key?"),
        ({"hiden_act": "relu"}, "no key 'hiden_act'; did you mean hidden_act?"),
        ({"local_attention": 8}, "no key 'local_attention'; "),
        ({"zzz": 1}, "no key 'zzz'; config.json, BertConfig, vLLM's list and poolc have no such"),
        (
            {"sentence_transformers": {"activation": "x"}},
            "no key 'sentence_transformers.activation'; did you mean sentence_transformers.activa",
        ),
        ({"head_dtype": "float16"}, "head_dtype is 'float16'; heads compute in float32, "),
    ],
)
def test_refused(overrides: Any, message: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        check_overrides(BERT, overrides)
    assert str(caught.value).startswith(f"hf_overrides: {message}")
    assert caught.value.param == "hf_overrides"


def test_keys_that_vllm_reads_and_poolc_does_not_are_told() -> None:
    (warning,) = check_overrides(BERT, {"colbert_dim": 8})
    assert warning.startswith("hf_overrides: colbert_dim has no effect here: it is read from")
    assert check_overrides({"model_type": "electra"}, {"embedding_size": 16}) == []


def test_keys_of_an_authors_own_layout() -> None:
    nomic = {"model_type": "nomic_bert", "n_embd": 32, "n_layer": 1, "n_head": 4}
    assert check_overrides(nomic, {"n_layer": 2, "layer_norm_eps": 1e-6}) == []
    own = {"model_type": "custom", "auto_map": {"AutoConfig": "custom.Config"}}
    assert check_overrides(own, {"anything": 1}) == []


@pytest.mark.parametrize("name", ["use_sep_token", "use_pad_token"])
def test_separator(name: str, source: Source, recognise: Recognise) -> None:
    pairs = source("tiny_cross_encoder")
    assert recognise(pairs, hf_overrides={name: True}).spec.pairs
    with pytest.raises(InvalidOption, match=f"{name} is False; the tokenizer does; allowed: true"):
        recognise(pairs, hf_overrides={name: False})
    with pytest.raises(InvalidOption, match=f"{name} says how rerankers read two texts"):
        recognise(source("tiny_embedder"), hf_overrides={name: True})
    templated = source("tiny_lm_reranker")
    assert recognise(templated, hf_overrides={name: False}).spec.template
    with pytest.raises(InvalidOption, match=f"{name} is True; the score template joins two texts"):
        recognise(templated, hf_overrides={name: True})


# Origins.


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("config.json: problem_type regression", "--hf-overrides: problem_type regression"),
        ("config.json: a.b", "--hf-overrides: a.b"),
        ("config.json: a.c", "config.json: a.c"),
        ("2 label(s) in config.json: id2label", "2 label(s) in --hf-overrides: num_labels"),
        ("max (config.json: architectures X)", "max (config.json: architectures X)"),
        ("1_Pooling/config.json: problem_type", "1_Pooling/config.json: problem_type"),
        ("tokenizer_config.json: problem_type", "tokenizer_config.json: problem_type"),
        ("--max-length", "--max-length"),
    ],
)
def test_attributed(origin: str, expected: str) -> None:
    overrides = {"problem_type": "regression", "num_labels": 2, "a": {"b": 1}}
    assert attributed(origin, overrides) == expected


def test_origins_of_overridden_choices(source: Source, recognise: Recognise) -> None:
    overrides: dict[str, Any] = {"problem_type": "regression", "num_labels": 4}
    spec = recognise(source("tiny_classifier"), hf_overrides=overrides).spec
    assert (spec.activation, len(spec.labels)) == (Activation.IDENTITY, 4)
    assert spec.origins["activation"] == "--hf-overrides: problem_type regression"
    assert spec.origins["labels"] == "--hf-overrides: num_labels"
    assert spec.origins["pairs"] == "4 label(s) in --hf-overrides: num_labels"
    overrides = {"architectures": ["BertForTokenClassification"], "max_position_embeddings": 48}
    spec = recognise(source("tiny_classifier"), hf_overrides=overrides).spec
    for name in ("kind", "tasks", "trunk"):
        assert spec.origins[name] == "--hf-overrides: architectures BertForTokenClassification"
    assert spec.origins["max_length"] == "--hf-overrides: max_position_embeddings"


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("tiny_classifier", {"use_activation", "template", "truncation_side"}),
        ("tiny_lm_reranker", {"use_activation", "template_special_tokens"}),
        ("tiny_tagger", {"use_activation", "truncation_side"}),
        ("tiny_bge_m3", {"similarity", "chunk", "include_prompt", "normalize", "matryoshka"}),
        ("tiny_splade", {"default_prompt_name", "truncation_side", "trunk"}),
    ],
)
def test_defaults_have_origins(
    name: str, rows: set[str], source: Source, recognise: Recognise
) -> None:
    origins = recognise(source(name)).spec.origins
    assert rows <= origins.keys()
    assert origins["truncation_side"] == "default of transformers: right"


def test_default_may_be_the_files(tmp_path: Path, recognise: Recognise) -> None:
    folder = encoder(tmp_path / "model")
    edit_json(folder / "tokenizer_config.json", truncation_side="left")
    spec = recognise(folder, pooler_config={"seq_pooling_type": "MAX"}).spec
    assert spec.origins["truncation_side"] == "tokenizer_config.json: truncation_side"
    assert (spec.pooling, spec.truncation_side) == ((PoolingType.MAX,), "left")
