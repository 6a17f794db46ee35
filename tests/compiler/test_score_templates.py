"""Which score template a model is compiled with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from poolc.errors import InvalidOption
from poolc.runtime.engine import Engine
from tests.compiler.conftest import CompileHere, Recognise
from tests.compiler.folders import causal, classifier, encoder
from tests.models import RERANKER_LENGTH

OWN = "{{ query }} / {{ document }}"
QWEN3: dict[str, Any] = {
    "classifier_from_token": ["bad", "good"],
    "is_original_qwen3_reranker": True,
    "max_position_embeddings": RERANKER_LENGTH,
}


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return causal(tmp_path_factory.mktemp("lm") / "model")


def test_recognize_template_of_qwen3(generator: Path, recognise: Recognise) -> None:
    known = recognise(generator, hf_overrides=QWEN3, max_length=RERANKER_LENGTH)
    assert known.spec.template == "score_template.jinja"
    assert known.spec.origins["template"] == "--hf-overrides: is_original_qwen3_reranker"
    assert known.warnings == []


def test_recognize_template_of_an_option(generator: Path, recognise: Recognise) -> None:
    spec = recognise(generator, hf_overrides=QWEN3, score_template=OWN).spec
    assert spec.origins["template"] == "--score-template"


def test_template_makes_pairs_of_a_classifier(tmp_path: Path, compile_here: CompileHere) -> None:
    folder = classifier(tmp_path / "model")
    artifact = compile_here(folder, score_template="{{ instruction }}: " + OWN)
    plain = compile_here(folder)
    assert artifact.manifest.spec.pairs
    assert artifact.space_id != plain.space_id
    assert artifact.file("score_template.jinja").read_text() == "{{ instruction }}: " + OWN
    assert artifact.manifest.options["score_template"] == "{{ instruction }}: " + OWN
    engine = Engine(artifact)
    got = engine.score("a", "bread", label=0, instruction="Find")
    wanted = Engine(plain).classify(["Find: a / bread"]).probs[:, 0]
    assert got == pytest.approx(wanted, abs=1e-6)
    with pytest.raises(InvalidOption, match="'instruction' is undefined: pass an instruction"):
        engine.score("a", "bread", label=0)


def test_template_of_an_embedding_model(tmp_path: Path, recognise: Recognise) -> None:
    with pytest.raises(InvalidOption, match="this one is of kind embedding: leave it out"):
        recognise(encoder(tmp_path / "model"), score_template=OWN)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ query }} {{ passage }}", "score_template uses 'passage', which it is not given"),
        ("{{ query }} {{ document", "score_template is not a Jinja template: line 1"),
        ("{{ query }} {{ bos_token }} {{ document }}", "score_template uses 'bos_token'"),
        (OWN + " a river" * 80, "makes 1.. tokens of two letters, and the maximum length is 64"),
    ],
)
def test_template_refused(
    template: str, message: str, generator: Path, recognise: Recognise
) -> None:
    with pytest.raises(InvalidOption, match=message):
        recognise(generator, hf_overrides=QWEN3, score_template=template)
