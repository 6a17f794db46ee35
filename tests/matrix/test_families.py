"""One head a family in this process; three through the command line are slow tests."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from poolc.model_cache.artifact import open_artifact
from poolc.runtime.engine import Engine
from tests.matrix.cells import Cell, cells
from tests.matrix.checkpoints import CHECKPOINTS
from tests.matrix.compare import BOUND, compile_folder
from tests.matrix.families import FAMILIES
from tests.matrix.heads import HEADS
from tests.matrix.page import MEASURED, PAGE, failures, render

# The other columns are measured by `make models`. Classifiers read their family's base model too,
# at the last token where it is a decoder.
_HEADS_IN_TURN = ("mean", "dense", "single-label", "cross-encoder")


def _chosen() -> list[Cell]:
    by_name = {cell.name: cell for cell in cells()}
    chosen = []
    for place, family in enumerate(FAMILIES):
        head = _HEADS_IN_TURN[place % len(_HEADS_IN_TURN)]
        cell = by_name[f"{family}/{head}"]
        chosen.append(cell if cell.reason is None else by_name[f"{family}/mean"])
    return chosen


@pytest.mark.parametrize("cell", _chosen(), ids=lambda cell: cell.name)
def test_family(cell: Cell, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    head = HEADS[cell.head]
    head.build(FAMILIES[cell.family], folder)
    measured = head.measure(folder, compile_folder(folder, tmp_path / "store"))
    assert measured.error <= BOUND
    assert measured.invariance <= BOUND
    assert measured.longest == 64


# The other rows are what tests of their own compare, in the modules that build them.
@pytest.mark.parametrize("name", ["add-eos-token", "mxbai-rerank-v2", "bge-reranker-v2-gemma"])
def test_checkpoint(name: str, tmp_path: Path) -> None:
    checkpoint = CHECKPOINTS[name]
    folder = checkpoint.build(tmp_path)
    engine = compile_folder(folder, tmp_path / "store", **checkpoint.options)
    measured = checkpoint.measure(folder, engine)
    assert measured.error <= BOUND
    assert measured.invariance <= BOUND


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "head"), [("xlm-roberta", "mean"), ("qwen3", "last"), ("bert", "cross-encoder")]
)
def test_family_through_the_command_line(family: str, head: str, tmp_path: Path) -> None:
    folder, output = tmp_path / "model", tmp_path / "artifact"
    folder.mkdir()
    HEADS[head].build(FAMILIES[family], folder)
    command = [sys.executable, "-m", "poolc", "compile", str(folder), "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    measured = HEADS[head].measure(folder, Engine(open_artifact(output)))
    assert measured.error <= BOUND
    assert measured.invariance <= BOUND


def test_page_is_what_was_measured() -> None:
    measured = json.loads(MEASURED.read_text(encoding="utf-8"))
    assert PAGE.read_text(encoding="utf-8") == render(measured)
    assert not failures(measured)


def test_page_leaves_no_cell_out() -> None:
    measured = json.loads(MEASURED.read_text(encoding="utf-8"))
    found = {f"{cell['family']}/{cell['head']}": cell for cell in measured["cells"]}
    assert list(found) == [cell.name for cell in cells()]
    for cell in cells():
        assert found[cell.name].get("reason") == cell.reason


def test_page_leaves_no_checkpoint_out() -> None:
    measured = json.loads(MEASURED.read_text(encoding="utf-8"))
    found = {row["checkpoint"]: row for row in measured["checkpoints"]}
    assert list(found) == list(CHECKPOINTS)
    for name, checkpoint in CHECKPOINTS.items():
        row = found[name]
        said = (checkpoint.title, checkpoint.mirrors, checkpoint.note)
        assert (row["title"], row["mirrors"], row["note"]) == said
        assert row["tasks"]


def test_failures_names_cells_out_of_bounds() -> None:
    good = {"family": "bert", "head": "mean", "error": 1e-6, "invariance": 0.0}
    page = {
        "cells": [
            good,
            {**good, "head": "cls", "error": 2e-5},
            {**good, "head": "last", "error": float("nan")},
            {"family": "bert", "head": "dense", "failed": "CompileError: no"},
            {"family": "t5", "head": "cls", "reason": "none"},
        ],
        "checkpoints": [
            {"checkpoint": "bge-m3", "error": 1e-6, "invariance": 0.0},
            {"checkpoint": "model2vec", "error": 1e-6, "invariance": 3e-5},
            {"checkpoint": "chunked", "failed": "CompileError: no"},
        ],
    }
    assert failures(page) == [
        "bert/cls: 2e-05, invariance 0",
        "bert/last: nan, invariance 0",
        "bert/dense: CompileError: no",
        "model2vec: 1e-06, invariance 3e-05",
        "chunked: CompileError: no",
    ]
