"""What this machine can run: found by trying, never by asking what a library was built with.

Imports ONNX Runtime through the backend and everything else not at all (package metadata tells
versions). Decides nothing: ``poolc doctor`` prints it, users act on it.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from poolc.errors import MissingDependency
from poolc.model_cache.host import cpu_features
from poolc.runtime.backends.cuda_library import NO_FALLBACK, load_cuda, quiet, starting_problem
from poolc.runtime.backends.cuda_library import PROVIDER as CUDA_PROVIDER
from poolc.runtime.backends.onnxruntime import import_onnxruntime
from poolc.runtime.cores import allowed_cores
from poolc.runtime.probe_engines import Library, engine_advice, probe_libraries, too_old

# Package -> the module it is imported as, by extra; ``doctor`` tells what is missing.
EXTRAS: Mapping[str, tuple[str, ...]] = {
    "compile": (
        "huggingface-hub",
        "onnx",
        "onnxscript",
        "protobuf",
        "safetensors",
        "sentence-transformers",
        "sentencepiece",
        "torch",
        "transformers",
    ),
    "serve": (
        "fastapi",
        "httptools",
        "prometheus-client",
        "pydantic",
        "pyyaml",
        "uvicorn",
        *(("uvloop",) if sys.platform != "win32" else ()),  # there is none for Windows
    ),
}

_CPU_PROVIDER = "CPUExecutionProvider"
# Links an older TensorRT than engines are built by, and no target runs on it.
_UNUSED = ("TensorrtExecutionProvider",)

# Instruction sets that decide how fast an artifact runs here.
_TOLD_FEATURES = (
    "avx2",
    "fma",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx_vnni",
    "amx_int8",
    "amx_bf16",
    "neon",
    "asimddp",
    "i8mm",
    "sve",
)
_GPU_COMMAND = (
    "nvidia-smi",
    "--query-gpu=name,memory.total,driver_version,compute_cap",
    "--format=csv,noheader",
)


@dataclass(frozen=True, slots=True)
class Machine:
    """The processor and memory that this process may use."""

    system: str
    processor: str
    cpu_features: tuple[str, ...]
    allowed_cores: int
    host_cores: int
    memory_bytes: int | None  # the lower of the machine's and the container's
    available_bytes: int | None


@dataclass(frozen=True, slots=True)
class Provider:
    """An execution provider of ONNX Runtime; ``problem`` is why it does not really load."""

    name: str
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class OnnxRuntime:
    """The installed ONNX Runtime; ``problem`` is why it cannot be used."""

    version: str | None = None
    providers: tuple[Provider, ...] = ()
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Gpu:
    """The NVIDIA devices; ``problem`` is why the driver does not tell."""

    devices: tuple[str, ...] = ()
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Probe:
    """Everything that ``poolc doctor`` tells; ``advice`` is what to install for the rest.

    ``libraries`` are those that build and run engines, by package.
    """

    python: str
    machine: Machine
    onnxruntime: OnnxRuntime
    gpu: Gpu
    libraries: Mapping[str, Library | None]
    packages: Mapping[str, Mapping[str, str | None]]  # extra -> package -> version
    advice: tuple[str, ...]


def probe() -> Probe:
    """Look at this machine. Raises nothing: what fails is part of the answer."""
    onnxruntime, gpu, libraries = probe_onnxruntime(), probe_gpu(), probe_libraries()
    packages = {extra: {name: _version(name) for name in names} for extra, names in EXTRAS.items()}
    return Probe(
        python=platform.python_version(),
        machine=probe_machine(),
        onnxruntime=onnxruntime,
        gpu=gpu,
        libraries=libraries,
        packages=packages,
        advice=(*_advice(onnxruntime, packages), *_gpu_advice(onnxruntime, gpu, libraries)),
    )


def probe_machine() -> Machine:
    """Return what this process may use, cgroup limits and affinity included."""
    present = cpu_features()
    total, available = _memory()
    return Machine(
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        processor=_processor_name(),
        cpu_features=tuple(name for name in _TOLD_FEATURES if name in present),
        allowed_cores=allowed_cores(),
        host_cores=os.cpu_count() or 1,
        memory_bytes=total,
        available_bytes=available,
    )


def probe_onnxruntime() -> OnnxRuntime:
    """Import ONNX Runtime and run a one-node model on each provider that a target could use."""
    try:
        ort = import_onnxruntime()
    except MissingDependency as error:
        return OnnxRuntime(
            version=_version("onnxruntime") or _version("onnxruntime-gpu"), problem=str(error)
        )
    listed = (name for name in ort.get_available_providers() if name not in _UNUSED)
    providers = tuple(_try_provider(ort, name) for name in listed)
    return OnnxRuntime(version=str(ort.__version__), providers=providers)


def probe_gpu() -> Gpu:
    """Ask the NVIDIA driver for devices."""
    try:
        done = subprocess.run(_GPU_COMMAND, capture_output=True, text=True, timeout=30, check=False)
    except FileNotFoundError:
        driver = Path("/proc/driver/nvidia/version").exists()
        problem = "a driver is loaded, but nvidia-smi is not there" if driver else None
        return Gpu(problem=problem)
    except (OSError, subprocess.SubprocessError) as error:
        return Gpu(problem=f"nvidia-smi failed: {error}")
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split())
        return Gpu(problem=f"nvidia-smi failed: {said}")
    devices = tuple(line.strip() for line in done.stdout.splitlines() if line.strip())
    return Gpu(devices=devices)


def tiny_model() -> bytes:
    """Return an ONNX model of two nodes, y = -|x| for two floats, without the onnx package.

    A norm, as models of embeddings have it: ONNX Runtime computes it by cuDNN, which it loads only
    then.
    """

    def message(number: int, payload: bytes) -> bytes:  # a length-delimited protobuf field
        return bytes([number << 3 | 2, len(payload)]) + payload

    def integer(number: int, value: int) -> bytes:
        return bytes([number << 3, value])

    def floats(name: bytes, size: int) -> bytes:
        shape = message(2, message(1, integer(1, size)))  # one dimension
        return message(1, name) + message(2, message(1, integer(1, 1) + shape))  # 1 is float

    graph = (
        message(1, message(1, b"x") + message(2, b"norm") + message(4, b"ReduceL2"))
        + message(1, message(1, b"norm") + message(2, b"y") + message(4, b"Neg"))
        + message(2, b"probe")
        + message(11, floats(b"x", 2))
        + message(12, floats(b"y", 1))
    )
    return integer(1, 8) + message(8, integer(2, 13)) + message(7, graph)


def provider_problem(name: str) -> str | None:
    """Say why an execution provider of ONNX Runtime does not run here; None where it does.

    Raises MissingDependency without ONNX Runtime.
    """
    ort = import_onnxruntime()
    if name not in ort.get_available_providers():
        return f"this build of ONNX Runtime has no {name}"
    return _try_provider(ort, name).problem


def _try_provider(ort: Any, name: str) -> Provider:
    options = ort.SessionOptions()
    options.log_severity_level = 4  # the reason is in what follows, not on the terminal
    options.intra_op_num_threads = 1
    if name == CUDA_PROVIDER:
        load_cuda(ort)
    if name != _CPU_PROVIDER:
        # Otherwise the CPU would run the node in its place, and all would look well.
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        with quiet(ort):
            session = ort.InferenceSession(tiny_model(), options, providers=[name], **NO_FALLBACK)
        (answer,) = session.run(None, {"x": np.array([3, 4], np.float32)})
    except Exception as error:  # the library's exception classes share no public base
        problem = starting_problem(ort, error) if name == CUDA_PROVIDER else None
        reason = problem or " ".join(str(error).split())
        fell_back = "assigned to the default CPU EP" in reason
        return Provider(name, "runs nothing here: the CPU would" if fell_back else reason)
    # A provider that cannot start is replaced without an error.
    chosen = session.get_providers()[0]
    if chosen != name:
        return Provider(name, f"does not start: {chosen} would run in its place")
    return Provider(name, None if answer[0] == -5 else f"computes -5 as {answer[0]}")


def _advice(
    onnxruntime: OnnxRuntime, packages: Mapping[str, Mapping[str, str | None]]
) -> list[str]:
    advice = []
    if onnxruntime.problem is not None:
        # An image that runs engines needs none.
        advice.append(f"for the cpu and cuda targets: {onnxruntime.problem}")
    purposes = {"compile": "to compile models", "serve": "to serve over HTTP"}
    for extra, purpose in purposes.items():
        missing = [name for name, version in packages[extra].items() if version is None]
        if missing:
            advice.append(f'{purpose} (missing {", ".join(missing)}): pip install "poolc[{extra}]"')
        if "torch" in missing:
            advice.append(
                "without torch only models that ship ONNX (onnx/model.onnx) compile: "
                'pip install "poolc[compile-onnx]"'
            )
    return advice


def _gpu_advice(
    onnxruntime: OnnxRuntime, gpu: Gpu, libraries: Mapping[str, Library | None]
) -> list[str]:
    if gpu.problem is not None:
        return [f"for GPU targets: a working NVIDIA driver ({gpu.problem})"]
    if not gpu.devices:
        return [
            "to run what is compiled for GPUs: an NVIDIA GPU and its driver (none was found; the "
            "cpu target needs neither, and cuda and tensorrt-rtx compile without)"
        ]
    advice = []
    problems = {provider.name: provider.problem for provider in onnxruntime.providers}
    if onnxruntime.problem is None and CUDA_PROVIDER not in problems:
        advice.append(
            "for the cuda target (ONNX Runtime is its CPU build): pip uninstall onnxruntime, then "
            'pip install "poolc[gpu]"'
        )
    elif problems.get(CUDA_PROVIDER) is not None:
        wanted = too_old(gpu.devices) or (
            'pip install "poolc[gpu]", and a driver new enough for what it brings'
        )
        advice.append(
            f"for the cuda target (CUDA does not start: {problems[CUDA_PROVIDER]}): {wanted}"
        )
    return [*advice, *engine_advice(gpu.devices, libraries)]


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _processor_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                key, _, value = line.partition(":")
                if key.strip() == "model name":
                    return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory() -> tuple[int | None, int | None]:
    """Return total and available bytes, a container's limit included."""
    sizes: dict[str, int] = {}
    try:
        with open("/proc/meminfo", encoding="utf-8") as file:
            for line in file:
                key, _, value = line.partition(":")
                if key in ("MemTotal", "MemAvailable"):
                    sizes[key] = int(value.split()[0]) * 1024
    except (OSError, ValueError):
        pass
    total, available = sizes.get("MemTotal"), sizes.get("MemAvailable")
    limit = _number("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
    if limit is not None and total is not None and limit < total:
        used = _number(
            "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory/memory.usage_in_bytes"
        )
        free = limit - (used or 0)
        return limit, free if available is None else min(free, available)
    return total, available


def _number(*paths: str) -> int | None:
    for path in paths:
        try:
            return int(Path(path).read_text())
        except (OSError, ValueError):  # not there, or "max"
            continue
    return None
