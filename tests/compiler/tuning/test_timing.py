"""Sessions in turns: what is compared, and when it is enough."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poolc.compiler.tuning import timing
from poolc.compiler.tuning.timing import compare, feeds, session
from poolc.model_cache.artifact import open_artifact
from tests.compiler.passes.rewriting import graph


class Fake:
    """A session whose runs take what is next in a list."""

    def __init__(self, *seconds: float) -> None:
        self.seconds = list(seconds)
        self.runs = 0

    def take(self) -> float:
        self.runs += 1
        return self.seconds[min(self.runs, len(self.seconds)) - 1]


@pytest.fixture(autouse=True)
def _fake_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(runner: Any, inputs: Any) -> float:
        taken: float = runner.take()
        return taken

    monkeypatch.setattr(timing, "seconds", seconds)


def test_faster() -> None:
    found = compare(Fake(1.0), Fake(9.0, 0.5), [{}], 0.01, float("inf"), 50)
    assert found.ratio == pytest.approx(2.0)
    assert found.sure
    assert found.rounds == 5  # clear; the first run is not counted


def test_within_the_noise() -> None:
    found = compare(Fake(1.0), Fake(0.995), [{}, {}], 0.01, float("inf"), 20)
    assert not found.sure
    assert found.rounds == 20


def test_one_lucky_run_is_not_sure() -> None:
    found = compare(Fake(1.0), Fake(1.0, 0.5, 1.0), [{}], 0.01, float("inf"), 9)
    assert found.ratio == pytest.approx(2.0)
    assert not found.sure


def test_at_least_three_rounds() -> None:
    assert compare(Fake(1.0), Fake(1.0), [{}], 0.01, 0.0, 50).rounds == 3


def test_session_leaves_no_files(tmp_path: Path) -> None:
    model = graph(
        "g (float[n, 32] x) => (float[n, 32] y) { y = MatMul (x, w) }",
        {"w": np.eye(32, dtype=np.float32)},
    )
    opened = session(model, tmp_path)
    x = np.ones((2, 32), np.float32)
    np.testing.assert_array_equal(opened.run(None, {"x": x})[0], x)
    assert list(tmp_path.iterdir()) == []


def test_feeds(tiny_embedder: Path) -> None:
    spec = open_artifact(tiny_embedder).manifest.spec
    made = feeds(spec, (2, 5))
    assert list(made) == list(spec.inputs)
    assert made["attention_mask"].all()
    assert made["input_ids"].max() < spec.vocab_size
