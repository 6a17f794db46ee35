"""The default prompt of a cross-encoder without a template, against CrossEncoder.predict."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import CrossEncoder

from poolc.errors import UnsupportedModel
from poolc.runtime.engine import Engine
from tests.compiler.conftest import CompileHere, Recognise
from tests.compiler.folders import TEXTS, edit_json
from tests.compiler.logit_scores import PAIRS as LM_PAIRS
from tests.compiler.logit_scores import save as save_lm_reranker
from tests.models import tiny_cross_encoder

ST_FILE = "config_sentence_transformers.json"
PROMPTS = {"find": "the quick river: ", "other": "bread: "}
PAIRS = [(TEXTS[0], TEXTS[2]), (TEXTS[3], TEXTS[1]), (TEXTS[1], TEXTS[3]), (TEXTS[4], TEXTS[5])]


def save(folder: Path, name: str | None) -> CrossEncoder:
    plain = folder.with_name("plain")
    plain.mkdir()
    tiny_cross_encoder(plain)
    encoder = CrossEncoder(
        str(plain), device="cpu", prompts=PROMPTS, default_prompt_name=name, local_files_only=True
    )
    encoder.save_pretrained(str(folder))
    return encoder


def test_default_prompt_stands_before_the_left_text(
    tmp_path: Path, compile_here: CompileHere
) -> None:
    encoder = save(tmp_path / "model", "find")
    engine = Engine(compile_here(tmp_path / "model"))
    left, right = zip(*PAIRS, strict=True)
    expected = encoder.predict(PAIRS)
    assert np.abs(expected - encoder.predict(PAIRS, prompt="")).max() > 1e-3
    np.testing.assert_allclose(engine.score(left, right, truncate=True), expected, atol=1e-5)
    found = engine.classify(PAIRS, truncate=True).probs[:, 0]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    found = engine.score(left, right, truncate=True, prompt="")
    np.testing.assert_allclose(found, encoder.predict(PAIRS, prompt=""), atol=1e-5)
    # A template of the request has words of its own.
    template = "{{ query }} {{ document }}"
    np.testing.assert_allclose(
        engine.score(left, right, truncate=True, template=template),
        engine.score(left, right, truncate=True, template=template, prompt=""),
        atol=1e-6,
    )


def test_prompts_without_a_default_change_nothing(tmp_path: Path, recognise: Recognise) -> None:
    save(tmp_path / "model", None)
    spec = recognise(tmp_path / "model").spec
    assert (spec.prompts, spec.default_prompt_name) == ({}, None)


def test_origins(tmp_path: Path, recognise: Recognise) -> None:
    save(tmp_path / "model", "find")
    spec = recognise(tmp_path / "model").spec
    assert (spec.prompts, spec.default_prompt_name) == ({"find": PROMPTS["find"]}, "find")
    assert spec.origins["default_prompt_name"] == f"{ST_FILE}: default_prompt_name"


def test_absent_default_prompt(tmp_path: Path, recognise: Recognise) -> None:
    save(tmp_path / "model", "find")
    edit_json(tmp_path / "model" / ST_FILE, default_prompt_name="absent")
    with pytest.raises(UnsupportedModel, match="default_prompt_name 'absent' is not among the pro"):
        recognise(tmp_path / "model")


def test_language_model_without_a_template(tmp_path: Path, compile_here: CompileHere) -> None:
    encoder = save_lm_reranker(
        tmp_path / "model",
        template=None,
        values={},
        prompts=PROMPTS,
        default_prompt_name="find",
    )
    engine = Engine(compile_here(tmp_path / "model"))
    left, right = zip(*LM_PAIRS, strict=True)
    np.testing.assert_allclose(engine.score(left, right), encoder.predict(LM_PAIRS), atol=1e-5)
