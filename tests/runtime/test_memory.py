"""Memory limits: sizes, estimates, refusals, and micro-batches that wait for each other."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from poolc.errors import InvalidOption, TextTooLong
from poolc.model_cache.artifact import Artifact, open_artifact
from poolc.runtime.engine import Engine
from poolc.runtime.memory import MemoryFit, MemoryGuard, parse_bytes, shown
from poolc.runtime.request import Params, Prepared, TokenSequence
from poolc.spec import Task

FIT = MemoryFit(1000, (0.0, 1.0, 0.5), (100.0, 10.0), max_whole_tokens=10)
DEADLINE_S = 20


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, None),
        (5, 5),
        ("2GB", 2 * 10**9),
        ("1.5 GiB", 3 * 2**29),
        ("512m", 512 * 10**6),
        ("10 kb", 10**4),
    ],
)
def test_parse_bytes(given: int | str | None, expected: int | None) -> None:
    assert parse_bytes(given, "memory_limit") == expected


@pytest.mark.parametrize("given", ["", "two", "-1", "3 PB", "1e9", True])
def test_parse_bytes_refused(given: str) -> None:
    with pytest.raises(InvalidOption, match=r"memory_limit is .* a size like 2GB"):
        parse_bytes(given, "memory_limit")


def test_estimate_above_and_below_the_blocks() -> None:
    assert [FIT.estimate(n) for n in (2, 10, 11, 20)] == [4, 60, 210, 300]
    assert MemoryFit.recorded({"budget_tokens": 256}) is None
    assert (shown(1_290_000_000), shown(79_000_000), shown(500_000)) == (
        "1.29 GB",
        "79 MB",
        "0.5 MB",
    )


def prepared(*lengths: int, pairs: list[list[int]] | None = None) -> Prepared:
    sequences = [TokenSequence(np.ones(length, np.int64), None) for length in lengths]
    places = None if pairs is None else np.array(pairs)
    return Prepared(Task.EMBED, Params(), sequences, "main", places)


def test_check_names_item_figure_and_limit() -> None:
    guard = MemoryGuard(FIT, 1300, 100)
    assert guard.most_tokens == 20
    guard.check(prepared(20, 1))
    with pytest.raises(TextTooLong, match=r"item 7 has 21 tokens.*enough for 20 tokens") as error:
        guard.check(prepared(3, 20, 21), first_index=5)
    assert error.value.index == 7


def test_check_names_the_pair() -> None:
    guard = MemoryGuard(FIT, 1300, 100)
    with pytest.raises(TextTooLong) as error:
        guard.check(prepared(3, 4, 21, pairs=[[0, 1], [0, 2]]))
    assert error.value.index == 1


def test_check_without_a_limit_or_figures() -> None:
    MemoryGuard(FIT, None, 100).check(prepared(100))
    MemoryGuard(None, 1, 100).check(prepared(100))


def test_limit_below_what_the_model_takes() -> None:
    with pytest.raises(InvalidOption, match=r"this model takes 0\.0 MB before any text"):
        MemoryGuard(FIT, 1000, 100)


def test_holding_lets_run_what_fits_together() -> None:
    guard = MemoryGuard(FIT, 1450, 100)  # room for one of 20 tokens and others beside it
    first, go_on, second = threading.Event(), threading.Event(), threading.Event()
    running: list[int] = []

    def run(num_tokens: int, started: threading.Event) -> None:
        with guard.holding(num_tokens):
            running.append(num_tokens)
            started.set()
            assert go_on.wait(DEADLINE_S)

    with ThreadPoolExecutor(3) as pool:
        long = pool.submit(run, 20, first)
        assert first.wait(DEADLINE_S)
        other = pool.submit(run, 21, threading.Event())  # 300 + 310 bytes: has to wait
        short = pool.submit(run, 2, second)
        assert second.wait(DEADLINE_S)
        assert running == [20, 2]
        go_on.set()
        for held in (long, short, other):
            held.result()
    assert running == [20, 2, 21]


def test_holding_more_than_the_limit_runs_alone() -> None:
    guard = MemoryGuard(FIT, 1300, 100)
    with guard.holding(90):
        pass
    with guard.holding(2):
        pass


def test_engine_refuses_before_any_work(
    tiny_embedder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = open_artifact(tiny_embedder)
    record = {"resident_bytes": 1000, "whole": [0, 10]}
    monkeypatch.setattr(Artifact, "report", lambda _: {"memory": {"fit": record}})
    engine = Engine(artifact, memory_limit=1200)
    short, long = "a cat", "the quick brown fox jumps over the lazy dog while the cat sleeps again"
    assert engine.embed([short]).shape[0] == 1
    with pytest.raises(TextTooLong, match=r"item 1 has .* the limit is 0.0 MB, enough for 20"):
        engine.embed([short, long * 2])
    texts = [short] * 3000 + [long * 2]  # found before the first window runs
    with pytest.raises(TextTooLong, match="item 3000 has"):
        engine.embed(texts)
    assert engine.embed([long * 2], truncate=True, max_length=20).shape[0] == 1
    engine.close()


def test_limit_without_measurements(tiny_embedder: Path) -> None:
    artifact = open_artifact(tiny_embedder)
    assert Engine(artifact, memory_limit=1).embed(["a cat"]).shape[0] == 1  # only short texts
    spec = replace(artifact.manifest.spec, max_length=8192)
    long = replace(artifact, manifest=replace(artifact.manifest, spec=spec))
    with pytest.raises(InvalidOption, match="was not measured when this artifact was compiled"):
        Engine(long, memory_limit=10**9)
