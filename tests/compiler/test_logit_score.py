"""Sentence Transformers' rerankers made from a language model, against CrossEncoder.predict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import CrossEncoder

from poolc.errors import UnsupportedModel
from poolc.runtime.engine import Engine
from poolc.runtime.request import Params
from poolc.spec import LmHeadSpec, Task
from tests.compiler.conftest import CompileHere, Recognise
from tests.compiler.folders import edit_json
from tests.compiler.logit_scores import PAIRS, save
from tests.models import write_json


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CrossEncoder]:
    folder = tmp_path_factory.mktemp("logit_score") / "model"
    prompts = {"find": "Find the river", "other": "Find bread"}
    return folder, save(folder, prompts=prompts, default_prompt_name="find")


def test_logit_score(saved: tuple[Path, CrossEncoder], compile_here: CompileHere) -> None:
    folder, encoder = saved
    artifact = compile_here(folder)
    engine = Engine(artifact)
    left, right = zip(*PAIRS, strict=True)
    got = engine.score(left, right)
    np.testing.assert_allclose(got, encoder.predict(PAIRS), atol=1e-5)
    got = engine.score(left, right, instruction="")
    np.testing.assert_allclose(got, encoder.predict(PAIRS, prompt=""), atol=1e-5)
    got = engine.score(left, right, instruction="Find bread", use_activation=False)
    identity = encoder.predict(PAIRS, prompt="Find bread", activation_fn=_same)
    np.testing.assert_allclose(got, identity, atol=1e-5)
    spec = engine.spec
    assert (spec.labels, spec.instruction, spec.template_special_tokens) == (
        ("good",),
        "Find the river",
        False,
    )
    # Texts get the tokenizer's special tokens; prompts have what the template writes.
    items: list[Any] = ["a river", PAIRS[0], "bread", PAIRS[1]]
    alone = np.concatenate([engine.classify([item]).probs for item in items])
    np.testing.assert_allclose(engine.classify(items).probs, alone, atol=1e-6)
    (cls,) = engine.tokenize("[CLS]", add_special_tokens=False)
    found = engine.prepare(Task.CLASSIFY, items, Params()).sequences
    assert [int((sequence.ids == cls).sum()) for sequence in found] == [1, 1, 1, 1]


def _same(scores: Any) -> Any:
    return scores


def test_logit_score_of_one_token(tmp_path: Path, recognise: Recognise) -> None:
    encoder = save(tmp_path / "model", two=False)
    spec = recognise(tmp_path / "model").spec
    assert spec.lm_head == LmHeadSpec((encoder[1].true_token_id,), difference=False)


def test_logit_score_without_a_template(tmp_path: Path, recognise: Recognise) -> None:
    save(tmp_path / "model", template=None, values={})
    known = recognise(tmp_path / "model")
    assert known.spec.template is None
    assert "no score template" in " ".join(known.warnings)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("1_LogitScore/config.json", {"true_token_id": "yes"}, "true_token_id is 'yes'; it must"),
        ("1_LogitScore/config.json", {"module_input_name": "x"}, "module_input_name is 'x'"),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "needs text-generation"),
        (
            "sentence_bert_config.json",
            {
                "modality_config": {
                    "text": {"method": "forward"},
                    "message": {"format": "structured"},
                }
            },
            "format is 'structured'; poolc reads flat messages",
        ),
        (
            "sentence_bert_config.json",
            {"processing_kwargs": {"chat_template": {"word": ["a"]}}},
            r"processing_kwargs.chat_template.word is \['a'\]; poolc reads texts",
        ),
        (
            "sentence_bert_config.json",
            {"processing_kwargs": None},
            "chat template: chat_template uses 'word', which it is not given",
        ),
        (
            "config_sentence_transformers.json",
            {"default_prompt_name": "no"},
            "default_prompt_name 'no' is not among the prompts",
        ),
    ],
)
def test_logit_score_refused(
    file: str, changes: Any, message: str, tmp_path: Path, recognise: Recognise
) -> None:
    save(tmp_path / "model")
    edit_json(tmp_path / "model" / file, **changes)
    with pytest.raises(UnsupportedModel, match=message):
        recognise(tmp_path / "model")


def test_logit_score_with_another_module(tmp_path: Path, recognise: Recognise) -> None:
    save(tmp_path / "model")
    path = tmp_path / "model" / "modules.json"
    entries = json.loads(path.read_text())
    write_json(path, [*entries, {"type": "sentence_transformers.Normalize", "path": "2"}])
    with pytest.raises(UnsupportedModel, match=r"2/config.json: .* a Normalize module"):
        recognise(tmp_path / "model")
