"""Whether engines of TensorRT can be built and run here, and what is missing.

Libraries are imported in a process of their own: one that finds no driver may end it. Part of
``probe.py``, which decides when to ask.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata

from poolc.runtime.backends.tensorrt_library import INSTALL, MODULES
from poolc.spec import Target

_TIMEOUT_S = 60
# NVIDIA's support matrices: TensorRT 11 from Turing on; TensorRT-RTX on cards with RTX only, which
# leaves the data centre's 9.0 and 10.0 out.
_OLDEST = (7, 5)
_RTX = frozenset({(7, 5), (8, 0), (8, 6), (8, 9), (12, 0), (12, 1)})
CUDA_BINDINGS = "cuda-bindings"


@dataclass(frozen=True, slots=True)
class Library:
    """An installed library; ``problem`` is why it cannot be imported."""

    version: str
    problem: str | None = None


def probe_libraries() -> dict[str, Library | None]:
    """Look for both libraries and for cuda-bindings, which runs engines, by package name."""
    found = {str(target): _library(modules) for target, modules in MODULES.items()}
    return {**found, CUDA_BINDINGS: _distribution(CUDA_BINDINGS, "cuda.bindings.runtime")}


def too_old(devices: Sequence[str]) -> str | None:
    """Say which GPU is needed where all of ``devices``, lines of nvidia-smi, are too old for CUDA
    13; None where one is not, or may be."""
    return _unfit(Target.TENSORRT, {_name(line): _capability(line) for line in devices})


def engine_advice(devices: Sequence[str], libraries: Mapping[str, Library | None]) -> Iterator[str]:
    """Yield what to do for each target of engines; ``devices`` are lines of nvidia-smi."""
    capabilities = {_name(line): _capability(line) for line in devices}
    usable = set()
    for target in MODULES:
        too_old = _unfit(target, capabilities)
        if too_old is None:
            usable.add(target)
            yield from _library_advice(target, libraries.get(str(target)))
        elif target is Target.TENSORRT:
            yield f"for the {target} target: {too_old}"
    ready = [target for target in usable if libraries.get(str(target)) is not None]
    bindings = libraries.get(CUDA_BINDINGS)
    if ready and bindings is None:
        yield f"to run engines: pip install {CUDA_BINDINGS}"
    elif ready and bindings is not None and bindings.problem is not None:
        yield f"to run engines ({CUDA_BINDINGS} does not load: {bindings.problem}): a newer driver"


def _library_advice(target: Target, library: Library | None) -> Iterator[str]:
    if library is None:
        yield f"for the {target} target: {INSTALL[target]}"
    elif library.problem is not None:
        yield (
            f"for the {target} target ({MODULES[target][0]} {library.version} does not load: "
            f"{library.problem}): {INSTALL[target]}"
        )


def _unfit(target: Target, capabilities: Mapping[str, tuple[int, int] | None]) -> str | None:
    """Say why no GPU here runs a target's engines; None where one does, or may."""
    known = {name: found for name, found in capabilities.items() if found is not None}
    if len(known) < len(capabilities):
        return None
    if target is Target.TENSORRT_RTX:
        fit = any("RTX" in name or found >= (12, 0) for name, found in known.items())
        return None if fit and _RTX & set(known.values()) else "no GPU here is an RTX card"
    if any(found >= _OLDEST for found in known.values()):
        return None
    listed = ", ".join(f"{name} has {major}.{minor}" for name, (major, minor) in known.items())
    return f"a GPU of compute capability {_OLDEST[0]}.{_OLDEST[1]} or later ({listed})"


def _name(line: str) -> str:
    return line.split(",")[0].strip()


def _capability(line: str) -> tuple[int, int] | None:
    match = re.fullmatch(r"(\d+)\.(\d+)", line.rpartition(",")[2].strip())
    return (int(match[1]), int(match[2])) if match else None


def _library(modules: Sequence[str]) -> Library | None:
    for module in modules:
        if importlib.util.find_spec(module) is not None:
            return Library(_version(module), import_problem(module))
    return None


def _distribution(name: str, module: str) -> Library | None:
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
    return Library(version, import_problem(module))


def import_problem(module: str) -> str | None:
    """Import a module in a process of its own; return the last line that it says where it fails."""
    command = [sys.executable, "-c", f"import {module}"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"importing it failed: {error}"
    if done.returncode == 0:
        return None
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"importing it ended the process ({done.returncode})"


def _version(module: str) -> str:
    base = module.removesuffix("_bindings").replace("_", "-")
    for name in (base, f"{base}-cu13", f"{base}-cu13-bindings"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "of unknown version"
