"""benchmarks/systems/protocol.py: the commands of a loaded system."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.environments import reason
from benchmarks.process import NotRun
from benchmarks.systems.protocol import Commands, batch_sizes


class Lengths:
    """Answers with the length of each text."""

    settings = batch_sizes(1, 2)

    def run(self, items: list[str], setting: dict[str, Any]) -> list[list[int]]:
        if "fail" in items:
            raise ValueError("asked to")
        return [[len(item), setting["batch_size"]] for item in items]


@pytest.fixture
def items(tmp_path: Path) -> str:
    path = tmp_path / "items.json"
    path.write_text(json.dumps(["a", "bc"]))
    return str(path)


def test_run_writes_rows(items: str, tmp_path: Path) -> None:
    output = tmp_path / "rows.npy"
    assert Commands(Lengths()).answer({"op": "run", "items": items, "output": str(output)})[
        "seconds"
    ]
    assert np.load(output).tolist() == [[1, 1], [2, 1]]


def test_tune_keeps_the_fastest(items: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 2.0, 2.0, 3.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    answer = Commands(Lengths()).answer({"op": "tune", "items": items})
    assert answer["setting"] == {"batch_size": 2}
    assert [row["seconds"] for row in answer["tried"]] == [2, 1]


def test_each_answers_one_after_the_other(items: str) -> None:
    answer = Commands(Lengths()).answer({"op": "each", "items": items, "count": 3})
    assert len(answer["seconds"]) == 3


def test_error_is_an_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "items.json"
    path.write_text('["fail"]')
    assert Commands(Lengths()).answer({"op": "run", "items": str(path)}) == {
        "error": "ValueError: asked to"
    }


def test_reasons_are_short_and_name_no_path() -> None:
    assert reason("Collecting x\nERROR: no such wheel\n\n") == "ERROR: no such wheel"
    assert str(Path.home()) not in str(NotRun(f"{Path.home()}/x is missing"))
