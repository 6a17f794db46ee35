"""ONNX Runtime's CUDA provider: loading what it links, and sessions that never run elsewhere.

CUDA and cuDNN come from their own packages, which the system's loader does not search. Knows
nothing about artifacts.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

from poolc.errors import MissingDependency
from poolc.runtime.backends.onnxruntime import session_options

PROVIDER = "CUDAExecutionProvider"
_SHARED = "libonnxruntime_providers_shared.so"
_LIBRARY = "libonnxruntime_providers_cuda.so"
_WARNINGS, _FATAL = 2, 4  # the library's levels; it begins with the first


def load_cuda(ort: ModuleType) -> None:
    """Load CUDA and cuDNN from their packages, where they are; whoever makes a session calls it.

    What the library prints of those that it does not find goes to standard error.
    """
    if hasattr(ort, "preload_dlls"):
        with redirect_stdout(sys.stderr):  # answers are on standard output
            ort.preload_dlls()


def loading_problem(ort: ModuleType) -> str | None:
    """Return which library the provider cannot be loaded without; None where it loads, or may.

    ONNX Runtime only prints it, and runs on the CPU.
    """
    folder = Path(str(ort.__file__)).parent / "capi"
    if not (folder / _LIBRARY).exists():  # another system's names, or another build
        return None
    try:
        for name in (_SHARED, _LIBRARY):
            ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        return str(error)
    return None


def open_session(ort: ModuleType, model: str | bytes, settings: Mapping[str, str]) -> Any:
    """Load a graph onto a GPU; ``settings`` are the provider's.

    Raises MissingDependency where CUDA does not start, and what the library raises for a graph that
    it cannot load.
    """
    with quiet(ort):
        session = ort.InferenceSession(
            model, session_options(ort), providers=[(PROVIDER, dict(settings))]
        )
    chosen = session.get_providers()[0]
    if chosen != PROVIDER:
        problem = loading_problem(ort) or "`poolc doctor` says what is missing"
        raise MissingDependency(
            f"CUDA does not start here ({problem}): ONNX Runtime would run on {chosen}"
        )
    return session


@contextmanager
def quiet(ort: ModuleType) -> Iterator[None]:
    """Keep ONNX Runtime from printing, with every session, what its errors or poolc's say too."""
    ort.set_default_logger_severity(_FATAL)
    try:
        yield
    finally:
        ort.set_default_logger_severity(_WARNINGS)
