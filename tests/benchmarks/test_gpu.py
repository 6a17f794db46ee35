"""What ``make gpu-check`` does of each target, without a GPU: what follows what, and its tables."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import operations, speed, stages
from benchmarks.gpu.compiling import CUDA, TENSORRT, Wanted
from benchmarks.gpu.shapes import SHAPES, Texts
from benchmarks.gpu.table import summary

GOOD = {
    "scope": "artifact",
    "max_relative_error": 1e-4,
    "worst_cosine": 0.99999,
    "invariance_max_abs": 0.0,
    "layout": "packed",
}
SPEED = {
    "workloads": {
        "short": {"poolc": 9.0, "sentence_transformers": 3.0, "ratio": 3.0, "ratio_tokens": 1.0}
    },
    "full": {"ms": 1.0, "share": 0.5, "peer_ms": 2.0, "peer_share": 0.25},
}


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def run(tmp_path: Path, said: list[str]) -> stages.Run:
    return stages.Run(tmp_path, None, ("minilm",), (), time.monotonic() + 60, {}, said.append)


def answer(monkeypatch: pytest.MonkeyPatch, **result: Any) -> list[Wanted]:
    """Let models be built and compiled without doing either; return what was asked for."""
    asked: list[Wanted] = []

    def compile_shape(folder: str, wanted: Wanted, output: str) -> dict[str, Any]:
        asked.append(wanted)
        Path(output).mkdir(exist_ok=True)
        kept = {"target": wanted.target, "precision": wanted.precision}
        return {"model": Path(folder).name, **kept, **result}

    monkeypatch.setattr(stages, "build", lambda name, root, data: (root / name).mkdir())
    monkeypatch.setattr(stages, "compile_shape", compile_shape)
    return asked


@pytest.mark.parametrize("result", [{"failed": "BackendError: x"}, {**GOOD, "scope": "canonical"}])
def test_where_the_first_model_fails_nothing_else_is_tried(
    result: dict[str, Any], run: stages.Run, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = answer(monkeypatch, **result)
    monkeypatch.setattr(speed, "stress", lambda *_: pytest.fail("went on"))
    assert stages.run_target(run, TENSORRT)
    assert asked == [Wanted(TENSORRT, "fp16")]
    assert said[-1] == "tensorrt: the smoke test failed, nothing else of it is tried"


def test_models_are_measured_until_time_is_up(
    run: stages.Run, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, **GOOD)
    monkeypatch.setattr(speed, "stress", lambda *_: {"failures": []})
    monkeypatch.setattr(speed, "matrix_peak", lambda dtype: 7e14)
    monkeypatch.setattr(stages, "load_texts", lambda data: None)
    measured: list[str] = []

    def measure(system: Any, texts: Any, peak: float, say: Any) -> dict[str, Any]:
        measured.append(system.name)
        return {"target": system.wanted.target, "precision": system.wanted.precision, **SPEED}

    monkeypatch.setattr(speed, "measure", measure)
    assert not stages.run_target(run, TENSORRT)
    assert measured == ["MiniLM-L6 tensorrt fp16"]
    late = stages.Run(run.root, None, ("bert-base",), (), time.monotonic() - 1, {}, said.append)
    assert not stages.run_target(late, TENSORRT)
    assert said[-2:] == [
        f"bert-base tensorrt {name}: time is up, it was not measured" for name in ("fp16", "fp8")
    ]


def test_stages_can_be_chosen(
    run: stages.Run, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = answer(monkeypatch, **GOOD)
    monkeypatch.setattr(speed, "stress", lambda *_: {"failures": []})
    monkeypatch.setattr(stages, "_check", lambda *_: pytest.fail("families were not asked for"))
    monkeypatch.setattr(stages, "_measure", lambda *_: pytest.fail("speed was not asked for"))
    monkeypatch.setattr(stages, "load_texts", lambda data: Texts([], [], ["long"]))
    tried: list[Any] = []
    monkeypatch.setattr(
        operations, "operate", lambda artifacts, texts, *_: tried.append((artifacts, texts))
    )
    chosen = replace(run, stages=("operations",))
    assert not stages.run_target(chosen, CUDA)
    wanted = Wanted(CUDA, "fp16")
    assert asked == [wanted, wanted]  # the small model, and the large one for this
    artifacts = [run.artifact(name, wanted) for name in ("minilm", "xlm-r-large")]
    assert tried == [(artifacts, ["long"])]
    late = replace(chosen, until_s=time.monotonic() - 1)
    assert not stages.run_target(late, CUDA)
    assert said[-1] == "operations: time is up, nothing of them was tried"
    assert len(tried) == 1


def test_a_part_that_fails_takes_no_other_along(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "_doctor", lambda say: "all is well")
    monkeypatch.setattr(operations, "weights_once", lambda *_: {"graphs": 2})
    monkeypatch.setattr(operations, "out_of_memory", lambda *_: [])
    monkeypatch.setattr(operations, "serve", lambda *_: 1 // 0)
    monkeypatch.setattr(operations, "lost_device", lambda *_: {"ready": 503})
    monkeypatch.setattr(operations, "_bench_model", lambda *_: pytest.fail("time is up"))
    left = iter([False] * 5 + [True] * 4)
    found = operations.operate(
        [Path("small"), Path("large")], ["long"], said.append, lambda: next(left)
    )
    assert found == {
        "doctor": "all is well",
        "weights_once": {"graphs": 2},
        "out_of_memory": [],
        "lost_device": {"ready": 503},
        "served": {"failed": "ZeroDivisionError: integer division or modulo by zero"},
    }
    assert said[0] == f"served: FAILED {found['served']['failed']}"
    assert said[-1] == "bench model large, long texts: time is up, it was not tried"


def test_figures_of_logits_have_no_cosine() -> None:
    made = {**GOOD, "family": "qwen3/single-label", "target": CUDA, "precision": "fp16"}
    made |= {"worst_cosine": None}
    assert "worst cosine none" in stages.line(made)
    assert "| qwen3/single-label | fp16 | 1.0e-04 | - | packed |" in summary({"families": [made]})


def test_what_is_timed_in_which_precision() -> None:
    assert stages.precisions(SHAPES["bert-base"], CUDA) == ("fp16", "bf16")
    assert stages.precisions(SHAPES["bert-base"], TENSORRT) == ("fp16", "fp8")
    assert stages.precisions(SHAPES["minilm"], TENSORRT) == ("fp16",)


def test_tables_tell_the_targets_apart() -> None:
    found = {
        "speed": {
            "bert-base-fp16": {
                **SPEED,
                "target": CUDA,
                "precision": "fp16",
                "latency": {"graphs": 1.0, "plain": 2.0, "peer": 3.0},
            },
            "bert-base-tensorrt fp8": {
                **SPEED,
                "target": TENSORRT,
                "precision": "fp8",
                "latency": {"graphs": 1.5, "peer": 3.0},
            },
        },
        "families": [
            {"family": "bert", "target": TENSORRT, "precision": "fp8", **GOOD},
            {"family": "bert", "target": CUDA, "precision": "fp32", "failed": "ParityError: y"},
        ],
    }
    told = summary(found)
    assert "| BERT-base | fp16 | short | 9 | 3 | 3.00x | 1.00x |" in told
    assert "| BERT-base | tensorrt fp8 | 1.00 ms | 50 % | 2.00 ms, 25 % | 1.50, -, 3.00 |" in told
    assert "| bert | tensorrt fp8 | 1.0e-04 | 0.9999900 | packed |" in told
    assert "| bert | fp32 | ParityError: y | | |" in told
