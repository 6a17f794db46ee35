"""The search for faster rewrites, with timings that are made up and with real ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from poolc.compiler.tuning import choose as choosing
from poolc.compiler.tuning.candidates import NAMES, shipped
from poolc.compiler.tuning.choose import Built, choose
from poolc.compiler.tuning.record import Tuning
from poolc.compiler.tuning.timing import Comparison
from poolc.model_cache.artifact import open_artifact
from poolc.spec import ModelSpec


@pytest.fixture
def spec(tiny_embedder: Path) -> ModelSpec:
    return open_artifact(tiny_embedder).manifest.spec


@pytest.fixture
def costs(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """What each rewrite does to the time of a graph; sessions are the rewrites' names."""
    factors: dict[str, float] = {}

    def cost(names: Any) -> float:
        total = 1.0
        for name in names:
            total *= factors.get(name, 1.0)
        return total

    def compare(base: Any, other: Any, *_: Any) -> Comparison:
        ratio = cost(base) / cost(other)
        return Comparison(ratio, ratio > 1.01, 5)

    monkeypatch.setattr(choosing, "compare", compare)
    monkeypatch.setattr(choosing, "session", lambda model, folder, threads=1: model)
    monkeypatch.setattr(choosing, "allowed_cores", lambda: 1)
    monkeypatch.setattr(choosing, "seconds", lambda runner, feeds: feeds["input_ids"].size)
    return factors


def build(names: Sequence[str]) -> Built:
    found: Any = frozenset(names) - {"rotary"}  # nothing to rotate in this one
    return Built(tuple(names), found)


def test_keeps_what_is_faster(costs: dict[str, float], spec: ModelSpec, tmp_path: Path) -> None:
    costs |= {"gemm": 0.9, "float_mask": 1.1, "bias_gelu": 0.995, "rms_norm": 1.2}
    start = Tuning(("attention_mask", "rms_norm", "rotary"))
    tuned = choose(build, spec, start, "quick", tmp_path)
    assert tuned.tuning.rewrites == ("attention_mask", "rotary", "gemm")
    tried = tuned.report["rewrites"]
    assert tried["gemm"] == {"speedup": 1.1111, "rounds": 5, "kept": True}
    assert tried["rms_norm"] == {"speedup": 0.8333, "rounds": 5, "kept": False}
    assert tried["bias_gelu"]["kept"] is False  # within the noise
    assert "rotary" not in tried


def test_time_that_is_up(
    costs: dict[str, float], spec: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs["gemm"] = 0.5
    clock = iter(range(0, 1000, 3))
    monkeypatch.setattr("time.monotonic", lambda: float(next(clock)))
    tuned = choose(build, spec, Tuning(("attention_mask",)), "quick", tmp_path)
    assert tuned.tuning.rewrites == ("attention_mask",)
    assert tuned.report["rewrites"]["gemm"] == {"not_timed": "the time was up"}


@pytest.mark.parametrize(
    ("per_token", "expected"), [({512: 0.9}, 512), ({512: 0.98, 128: 0.99}, 256), ({}, 256)]
)
def test_budget_tokens(
    per_token: dict[int, float],
    expected: int,
    costs: dict[str, float],
    spec: ModelSpec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def seconds(runner: Any, feeds: Any) -> float:
        size = int(feeds["input_ids"].size)
        return size * per_token.get(size, 1.0)

    monkeypatch.setattr(choosing, "seconds", seconds)
    tuned = choose(build, spec, Tuning(()), "quick", tmp_path)
    assert tuned.tuning.budget_tokens == expected
    assert set(tuned.report["us_per_token"]) == {"128", "256", "512"}


@pytest.mark.parametrize(
    ("cores", "milliseconds", "expected"),
    [
        (1, {}, 8),  # nothing was tried: a larger machine may try
        (4, {1: 6, 2: 3, 4: 2}, 8),
        (4, {1: 6, 2: 3, 4: 2.9}, 2),
        (3, {1: 6, 2: 3, 3: 2}, 8),
        (16, {1: 6, 2: 5.8}, 1),
        (16, {1: 16, 2: 8, 4: 4, 8: 2}, 8),
    ],
)
def test_lone_threads(
    cores: int,
    milliseconds: dict[int, float],
    expected: int,
    costs: dict[str, float],
    spec: ModelSpec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def soonest(runners: Any, *_: Any) -> list[float]:
        return [milliseconds[1 if isinstance(one, tuple) else one] / 1000 for one in runners]

    monkeypatch.setattr(choosing, "allowed_cores", lambda: cores)
    monkeypatch.setattr(choosing, "soonest", soonest)
    monkeypatch.setattr(
        choosing, "session", lambda model, folder, threads=1: threads if threads > 1 else model
    )
    tuned = choose(build, spec, Tuning(()), "quick", tmp_path)
    assert tuned.tuning.lone_threads == expected
    assert tuned.report["lone_text_ms"] == {str(n): ms for n, ms in milliseconds.items()}


def test_shipped_by_cpu_features() -> None:
    everywhere, here = shipped(()), shipped(("avx2", "avx512f"))
    assert everywhere == ("attention_mask", "grouped_heads", "attention_layout", "pooled_rows")
    assert {*here} - {*everywhere} == {"rms_norm", "rotary", "float_mask", "gemm"}
    assert {*here} < {*NAMES}
