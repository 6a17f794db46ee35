"""Models that name Python of their own behind classes that transformers has too."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from transformers import AutoConfig

from poolc.compiler.architecture import probe, read_config
from poolc.errors import RemoteCodeRefused
from poolc.runtime.engine import Engine
from poolc.spec import Trunk
from tests.compiler.conftest import CompileHere, Recognise
from tests.compiler.folders import TEXTS, classifier, edit_json, encoder
from tests.matrix.families import FAMILIES
from tests.matrix.heads import HEADS

BOUND = 1e-5
GTE_QWEN2 = {
    "AutoModel": "modeling_qwen.Qwen2Model",
    "AutoModelForCausalLM": "modeling_qwen.Qwen2ForCausalLM",
}
# What gte-Qwen2's code adds to transformers' of its day.
BOTH_WAYS = """
from transformers import Qwen2Model as Theirs


class Qwen2Model(Theirs):
    def __init__(self, config):
        config.is_causal = False
        super().__init__(config)
"""


def gte_qwen2(folder: Path, **config: Any) -> Path:
    """An embedder of transformers' Qwen2 and of code that attends both ways."""
    folder.mkdir()
    HEADS["last"].build(FAMILIES["qwen2"], folder)
    edit_json(folder / "config.json", architectures=["Qwen2Model"], auto_map=GTE_QWEN2, **config)
    (folder / "modeling_qwen.py").write_text(BOTH_WAYS)
    return folder


def check(folder: Path, trunk: Trunk = Trunk.BASE) -> None:
    probe(read_config(folder, trust_remote_code=False), trunk, trust_remote_code=False)


def test_class_of_a_name_that_transformers_has(tmp_path: Path, recognise: Recognise) -> None:
    folder = gte_qwen2(tmp_path / "model")
    with pytest.raises(RemoteCodeRefused) as caught:
        recognise(folder)
    assert str(caught.value) == (
        "config.json names Python of the model's own for AutoModel (modeling_qwen.Qwen2Model), "
        "which poolc does not run unasked, and transformers' class may compute something else: "
        "read it, then pass --trust-remote-code (trust_remote_code=True). If it differs in nothing "
        'but attending both ways, as gte-Qwen2 does, hf_overrides {"is_causal": false} says so; if '
        'in nothing at all, hf_overrides {"auto_map": null}'
    )


@pytest.mark.parametrize("said", ["config.json", "hf_overrides"])
def test_gte_qwen2_attends_both_ways(
    said: str, tmp_path: Path, compile_here: CompileHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever says so, the vectors are those of the model's own code."""
    cache = "transformers.dynamic_module_utils.HF_MODULES_CACHE"
    monkeypatch.setattr(cache, str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", sys.path.copy())
    way = {"is_causal": False}
    folder = gte_qwen2(tmp_path / "model", **(way if said == "config.json" else {}))
    artifact = compile_here(folder, hf_overrides=way if said == "hf_overrides" else {})
    expected = SentenceTransformer(
        str(folder), device="cpu", local_files_only=True, trust_remote_code=True
    )
    found = Engine(artifact).embed(TEXTS, truncate=True)
    for row, text in zip(found, TEXTS, strict=True):
        wanted = expected.encode([text])[0]
        assert np.abs(row - wanted).max() <= BOUND * max(1.0, np.abs(wanted).max())


@pytest.mark.parametrize("overrides", [{"is_causal": True}, {"auto_map": None}])
def test_overrides_decide(overrides: dict[str, Any], tmp_path: Path, recognise: Recognise) -> None:
    known = recognise(gte_qwen2(tmp_path / "model"), hf_overrides=overrides)
    assert known.spec.architecture == "Qwen2Model"


def test_overrides_of_attention_do_not_excuse_a_foreign_class(
    tmp_path: Path, recognise: Recognise
) -> None:
    folder = gte_qwen2(tmp_path / "model")
    edit_json(folder / "config.json", architectures=["Qwen2BiModel"])
    with pytest.raises(RemoteCodeRefused, match=r"^Qwen2BiModel of config\.json is not in this"):
        recognise(folder, hf_overrides={"is_causal": False})


def test_another_class_than_the_one_that_is_loaded(tmp_path: Path) -> None:
    """What nobody loads decides nothing; jina-reranker-v2 names the one that is."""
    folder = classifier(tmp_path / "model", num_labels=1)
    named = "someone/flash--modeling_bert.BertForSequenceClassification"
    edit_json(folder / "config.json", auto_map={"AutoModelForSequenceClassification": named})
    check(folder)
    with pytest.raises(RemoteCodeRefused) as caught:
        check(folder, Trunk.SEQUENCE_CLASSIFIER)
    assert str(caught.value) == (
        f"config.json names Python of the model's own for AutoModelForSequenceClassification "
        f"({named}), which poolc does not run unasked, and transformers' class may compute "
        "something else: read it, then pass --trust-remote-code (trust_remote_code=True). If it "
        'differs in nothing, hf_overrides {"auto_map": null}'
    )


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("eurobert", "EuroBERT/EuroBERT-210m--modeling_eurobert.EuroBertModel"),
        ("phi3", "modeling_phi3.Phi3Model"),
        ("gte", "Alibaba-NLP/new-impl--modeling.NewModel"),
        ("nomic_bert", "nomic-ai/nomic-bert-2048--modeling_hf_nomic_bert.NomicBertModel"),
    ],
)
def test_code_that_transformers_took_over(kind: str, code: str, tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "vocab_size": 90}
    more = {"num_key_value_heads": 4, "intermediate_size": 64, "pad_token_id": 0}
    AutoConfig.for_model(kind, **sizes, **more).save_pretrained(tmp_path)
    edit_json(tmp_path / "config.json", auto_map={"AutoModel": code})
    check(tmp_path)
    edit_json(tmp_path / "config.json", auto_map={"AutoModel": "modeling_mine.MyModel"})
    with pytest.raises(RemoteCodeRefused, match="names Python of the model's own for AutoModel"):
        check(tmp_path)


def test_encoder_without_own_code(tmp_path: Path) -> None:
    check(encoder(tmp_path / "model"))
