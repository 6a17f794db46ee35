"""Classes for ``map_batches`` of Ray Data: what they add is what an engine answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poolc.runtime.engine import Engine
from tests.cluster.environment import said_by
from tests.runtime.bulk.conftest import texts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_answers_are_the_engines(
    artifact: Callable[[str], Path], embedder: Engine, classifier: Engine, cross_encoder: Engine,
    splade: Engine,
) -> None:  # fmt: skip
    left = texts(20)
    right = left[::-1]
    rows = [
        {"n": i, "text": a, "other": b} for i, (a, b) in enumerate(zip(left, right, strict=True))
    ]
    kinds = ("embedder", "classifier", "cross_encoder", "splade")
    told: dict[str, Any] = {kind: str(artifact(f"tiny_{kind}")) for kind in kinds}
    found = said_by("columns", json.dumps({**told, "rows": rows}))
    for name, kept in (("embedding", "embedding"), ("arrow", "v")):
        size = 8 if name == "embedding" else None
        vectors = np.array([row[kept] for row in found[name]])
        np.testing.assert_allclose(vectors, embedder.embed(left, dimensions=size), atol=1e-6)
        assert [row["text"] for row in found[name]] == left
    classes = classifier.classify(left)
    assert [row["label"] for row in found["label"]] == classes.labels
    np.testing.assert_allclose([row["probs"] for row in found["label"]], classes.probs, atol=1e-6)
    scores = cross_encoder.score(left, right)
    np.testing.assert_allclose([row["score"] for row in found["score"]], scores, atol=1e-6)
    for row, expected in zip(found["sparse"], splade.embed_sparse(left), strict=True):
        assert row["embedding"]["indices"] == expected.indices.tolist()
        np.testing.assert_allclose(row["embedding"]["values"], expected.values, atol=1e-6)
