"""The probe: what it finds here, and that what fails becomes part of the answer."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
from onnx.checker import check_model
from packaging.requirements import Requirement

from poolc.errors import MissingDependency
from poolc.runtime import probe as probing
from poolc.runtime.probe import (
    EXTRAS,
    Gpu,
    Machine,
    OnnxRuntime,
    Provider,
    probe,
    probe_gpu,
    probe_machine,
    probe_onnxruntime,
)
from poolc.runtime.probe_engines import Library, import_problem
from tests.runtime.backends.fake_cuda import broken_provider

ROOT = Path(__file__).resolve().parent.parent.parent


def test_probe_of_this_machine() -> None:
    found = probe()
    assert found.onnxruntime.version == onnxruntime.__version__
    assert found.packages["compile"]["torch"] is not None


def test_machine_is_sound() -> None:
    machine = probe_machine()
    assert 1 <= machine.allowed_cores <= machine.host_cores
    assert machine.memory_bytes is not None
    assert machine.available_bytes is not None
    assert 0 < machine.available_bytes <= machine.memory_bytes
    assert machine.processor


def test_tiny_model_is_valid_onnx() -> None:
    check_model(onnx.load_from_string(probing.tiny_model()), full_check=True)


def test_cpu_provider_really_runs() -> None:
    problems = {provider.name: provider.problem for provider in probe_onnxruntime().providers}
    assert problems["CPUExecutionProvider"] is None


class FakeSession:
    """A session that runs on the CPU whatever it was asked for, as ONNX Runtime's may."""

    answer = -5.0

    def __init__(
        self, model: bytes, options: object, providers: list[str], enable_fallback: int
    ) -> None:
        assert not enable_fallback
        self.providers = providers
        if providers == ["BrokenExecutionProvider"]:
            raise RuntimeError("libbroken.so:\n not found")
        if providers == ["CUDAExecutionProvider"] and not FakeRuntime.cuda_is_loaded:
            raise RuntimeError("... are assigned to the default CPU EP, but fallback ... disabled")

    def run(self, names: None, feeds: object) -> list[list[float]]:
        return [[self.answer]]

    def get_providers(self) -> list[str]:
        return self.providers if FakeRuntime.cuda_is_loaded else ["CPUExecutionProvider"]


class FakeRuntime:
    __version__ = "1.24.0"
    __file__ = onnxruntime.__file__
    SessionOptions = onnxruntime.SessionOptions
    InferenceSession = FakeSession
    set_default_logger_severity = staticmethod(onnxruntime.set_default_logger_severity)
    cuda_is_loaded = False

    def __init__(self, *providers: str) -> None:
        self.providers = providers

    def get_available_providers(self) -> tuple[str, ...]:
        return self.providers


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("CPUExecutionProvider", None),
        ("CUDAExecutionProvider", "runs nothing here: the CPU would"),
        ("OtherExecutionProvider", "does not start: CPUExecutionProvider would run in its place"),
        ("BrokenExecutionProvider", "libbroken.so: not found"),
    ],
)
def test_provider_that_does_not_load(
    monkeypatch: pytest.MonkeyPatch, name: str, problem: str | None
) -> None:
    monkeypatch.setattr(probing, "import_onnxruntime", lambda: FakeRuntime(name))
    (provider,) = probe_onnxruntime().providers
    assert provider.problem == problem


def test_cuda_is_loaded_from_its_packages_before_it_is_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Packaged(FakeRuntime):
        def preload_dlls(self) -> None:
            monkeypatch.setattr(FakeRuntime, "cuda_is_loaded", True)

    monkeypatch.setattr(probing, "import_onnxruntime", lambda: Packaged("CUDAExecutionProvider"))
    (provider,) = probe_onnxruntime().providers
    assert provider.problem is None


def test_library_that_cuda_lacks_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    imported, library = broken_provider(tmp_path)
    monkeypatch.setattr(FakeRuntime, "__file__", imported)
    monkeypatch.setattr(probing, "import_onnxruntime", lambda: FakeRuntime("CUDAExecutionProvider"))
    (provider,) = probe_onnxruntime().providers
    assert str(provider.problem) == f"{library}: file too short"


def test_providers_that_no_target_uses_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")
    monkeypatch.setattr(probing, "import_onnxruntime", lambda: FakeRuntime(*names))
    assert [provider.name for provider in probe_onnxruntime().providers] == list(names[1:])


def test_provider_that_computes_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "import_onnxruntime", lambda: FakeRuntime("CPUExecutionProvider"))
    monkeypatch.setattr(FakeSession, "answer", 1.0)
    (provider,) = probe_onnxruntime().providers
    assert provider.problem == "computes -5 as 1.0"


def test_onnxruntime_problem_is_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    def both() -> None:
        raise MissingDependency("onnxruntime and onnxruntime-gpu are both installed")

    monkeypatch.setattr(probing, "import_onnxruntime", both)
    found = probe()
    assert found.onnxruntime.providers == ()
    assert found.advice[0] == (
        "for the cpu and cuda targets: onnxruntime and onnxruntime-gpu are both installed"
    )


def test_missing_packages_are_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    version = probing._version
    missing = {"torch", "uvicorn"}
    monkeypatch.setattr(
        probing, "_version", lambda name: None if name in missing else version(name)
    )
    assert probe().advice[:3] == (
        'to compile models (missing torch): pip install "poolc[compile]"',
        "without torch only models that ship ONNX (onnx/model.onnx) compile: "
        'pip install "poolc[compile-onnx]"',
        'to serve over HTTP (missing uvicorn): pip install "poolc[serve]"',
    )


def fake_smi(monkeypatch: pytest.MonkeyPatch, outcome: Exception | tuple[int, str, str]) -> None:
    def call(command: Any, **options: Any) -> subprocess.CompletedProcess[str]:
        if isinstance(outcome, Exception):
            raise outcome
        return subprocess.CompletedProcess(command, *outcome)

    monkeypatch.setattr("poolc.runtime.probe.subprocess.run", call)


def test_gpu_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_smi(monkeypatch, (0, "NVIDIA H100, 81559 MiB, 570.1, 9.0\n", ""))
    assert probe_gpu().devices == ("NVIDIA H100, 81559 MiB, 570.1, 9.0",)


@pytest.mark.parametrize(
    ("outcome", "problem"),
    [
        ((9, "", "No devices\nwere found"), "nvidia-smi failed: No devices were found"),
        (subprocess.TimeoutExpired("nvidia-smi", 30), "timed out after 30 seconds"),
        (PermissionError("denied"), "nvidia-smi failed: denied"),
    ],
)
def test_gpu_problem_is_told(monkeypatch: pytest.MonkeyPatch, outcome: Any, problem: str) -> None:
    fake_smi(monkeypatch, outcome)
    found = probe_gpu()
    assert found.devices == ()
    assert problem in str(found.problem)


GPU = ("NVIDIA H100, 81559 MiB, 570.1, 9.0",)
RTX = ("NVIDIA GeForce RTX 5090, 32607 MiB, 570.1, 12.0",)
OLD = ("Tesla V100, 16160 MiB, 570.1, 7.0",)
LIBRARIES: dict[str, Library | None] = {
    "tensorrt": Library("11.4"),
    "tensorrt-rtx": None,
    "cuda-bindings": Library("13.1"),
}
CPU_WHEEL = (Provider("CPUExecutionProvider"),)
GPU_WHEEL = (Provider("CUDAExecutionProvider"), *CPU_WHEEL)


@pytest.mark.parametrize(
    ("providers", "gpu", "changed", "expected"),
    [
        (CPU_WHEEL, Gpu(), {}, ["GPUs: an NVIDIA GPU and its driver (none was found; the cpu "]),
        (CPU_WHEEL, Gpu(problem="nvidia-smi failed: 9"), {}, ["driver (nvidia-smi failed: 9)"]),
        (GPU_WHEEL, Gpu(GPU), {}, []),
        (CPU_WHEEL, Gpu(GPU), {}, ['pip install "poolc[gpu]"']),
        (
            GPU_WHEEL,
            Gpu(GPU),
            {"tensorrt": None},
            ['tensorrt target: pip install "poolc[tensorrt]'],
        ),
        (GPU_WHEEL, Gpu(RTX), {}, ['rtx target: pip install "poolc[tensorrt-rtx]"']),
        (GPU_WHEEL, Gpu(OLD), {}, ["7.5 or later (Tesla V100 has 7.0)"]),
        (
            (Provider("CUDAExecutionProvider", "CUDA failure 209"),),
            Gpu(OLD),
            {},
            ["209): a GPU of compute capability 7.5 or later (Tesla V100", "the tensorrt target"],
        ),
        (
            GPU_WHEEL,
            Gpu(GPU),
            {"tensorrt": Library("11.4", "no libnvinfer.so.11")},
            ["(tensorrt 11.4 does not load: no libnvinfer.so.11): pip install"],
        ),
        (GPU_WHEEL, Gpu(GPU), {"cuda-bindings": None}, ["engines: pip install cuda-bindings"]),
        (
            (Provider("CUDAExecutionProvider", "no libcudnn"),),
            Gpu(GPU),
            {},
            ['no libcudnn): pip install "poolc[gpu]"'],
        ),
    ],
)
def test_gpu_advice(
    monkeypatch: pytest.MonkeyPatch,
    providers: tuple[Provider, ...],
    gpu: Gpu,
    changed: dict[str, Library | None],
    expected: list[str],
) -> None:
    found = OnnxRuntime("1.24.0", providers)
    monkeypatch.setattr(probing, "probe_onnxruntime", lambda: found)
    monkeypatch.setattr(probing, "probe_gpu", lambda: gpu)
    monkeypatch.setattr(probing, "probe_libraries", lambda: {**LIBRARIES, **changed})
    advice = probe().advice
    assert len(advice) == len(expected)
    assert all(part in line for part, line in zip(expected, advice, strict=True))


def test_libraries_are_imported_to_see() -> None:
    assert import_problem("json") is None
    assert import_problem("tensorrt_of_another_name") == (
        "ModuleNotFoundError: No module named 'tensorrt_of_another_name'"
    )


def test_extras_are_those_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extra, names in EXTRAS.items():
        declared = project["optional-dependencies"][extra]
        assert sorted(names) == sorted(Requirement(line).name for line in declared)


def test_memory_limit_of_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"/sys/fs/cgroup/memory.max": 10**9, "/sys/fs/cgroup/memory.current": 4 * 10**8}
    monkeypatch.setattr(probing, "_number", lambda first, second: sizes[first])
    machine: Machine = probe_machine()
    assert machine.memory_bytes == 10**9
    assert machine.available_bytes == 6 * 10**8
