"""Models whose pooling does not count the tokens of a prompt, against sentence-transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

import poolc
from poolc.compiler.reference import base
from poolc.runtime.engine import Engine
from poolc.spec import POOLING_MASK
from tests.compiler.conftest import CompileHere, Recognise
from tests.compiler.folders import MODES, edit_json, sentence_transformer, set_pooling

PROMPTS = [None, "", "Represent the river: ", "query:"]
TEXTS = ["a river runs", "the quick brown fox " * 30, "a", "東京の天気は晴れ"]


def without_prompt(folder: Path, modes: list[str]) -> Path:
    sentence_transformer(folder)
    set_pooling(folder, modes)
    edit_json(folder / "1_Pooling" / "config.json", include_prompt=False)
    return folder


def test_every_pooling_mode_skips_the_prompt(
    tmp_path: Path, compile_here: CompileHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All modes side by side in one vector: one graph shows them all."""
    monkeypatch.setattr(base, "PARITY_MAX_LENGTH", 48)
    folder = without_prompt(tmp_path / "model", list(MODES.values()))
    artifact = compile_here(folder)
    spec = artifact.manifest.spec
    assert POOLING_MASK in spec.inputs
    assert spec.origins["include_prompt"] == "1_Pooling/config.json: include_prompt"
    engine: Engine = poolc.load(artifact.path)
    reference: Any = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    for prompt in PROMPTS:
        expected = reference.encode(TEXTS, prompt=prompt)
        found = engine.embed(TEXTS, prompt=prompt, truncate=True)
        np.testing.assert_allclose(found, expected, atol=1e-5 * max(1, np.abs(expected).max()))
    counted = engine.embed(TEXTS, prompt="", truncate=True)
    assert np.abs(counted - found).max() > 1e-2
    engine.close()


@pytest.mark.parametrize(("value", "counts"), [(True, True), (False, False), (None, True)])
def test_include_prompt_of_the_pooling_module(
    tmp_path: Path, recognise: Recognise, value: bool | None, counts: bool
) -> None:
    folder = without_prompt(tmp_path / "model", ["mean"])
    edit_json(folder / "1_Pooling" / "config.json", include_prompt=value)
    spec = recognise(folder).spec
    assert spec.include_prompt is counts
    assert (POOLING_MASK in spec.inputs) is not counts
