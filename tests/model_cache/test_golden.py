"""Artifacts that released versions wrote still open and give the reference's vectors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import poolc

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
SCHEMAS = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())


def test_golden_every_released_schema_is_kept() -> None:
    assert "schema-1.0" in SCHEMAS


@pytest.mark.parametrize("schema", SCHEMAS)
def test_golden_artifact_gives_the_reference_vectors(schema: str) -> None:
    expected = json.loads((GOLDEN / schema / "expected.json").read_text(encoding="utf-8"))
    engine = poolc.load(GOLDEN / schema / "artifact")
    vectors = engine.embed(expected["texts"])
    np.testing.assert_allclose(vectors, np.array(expected["vectors"]), atol=1e-5)
