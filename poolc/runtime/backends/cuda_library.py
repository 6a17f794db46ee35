"""ONNX Runtime's CUDA provider: loading what it links, and sessions that never run elsewhere.

CUDA and cuDNN come from their own packages, which the system's loader does not search. Knows
nothing about artifacts.
"""

from __future__ import annotations

import ctypes
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

from poolc.errors import MissingDependency
from poolc.runtime.backends.cuda_device import no_such_device
from poolc.runtime.backends.onnxruntime import session_options

PROVIDER = "CUDAExecutionProvider"
# How the library says what CUDA said, and that a device is none of those that there are.
_FAILURE = re.compile(r"CUDA failure (\d+): ([^;]+?) ;")
_BEYOND = re.compile(r"Invalid device ID: \d+, must be between 0 \(inclusive\) and (\d+)")
# CUDA's errors of initialisation, a driver that is too old, no device, one in exclusive use, a
# system that is not ready, another driver than the library of it, and the unknown one.
_NOT_STARTED = frozenset({3, 35, 46, 100, 802, 803, 804, 999})
_SHARED = "libonnxruntime_providers_shared.so"
_LIBRARY = "libonnxruntime_providers_cuda.so"
# Otherwise a session that fails, or a run of it, is repeated on the CPU, and why is printed.
NO_FALLBACK = {"enable_fallback": 0}
_WARNINGS, _FATAL = 2, 4  # the library's levels; it begins with the first
_printing, _logging = threading.Lock(), threading.Lock()
_quiet = 0  # who wants it to be, in however many threads


def load_cuda(ort: ModuleType) -> None:
    """Load CUDA and cuDNN from their packages, where they are; whoever makes a session calls it.

    What the library prints of those that it does not find goes to standard error.
    """
    if hasattr(ort, "preload_dlls"):
        # Answers are on standard output. Two threads that redirected it in turns would each restore
        # what it found, and the last one the other's.
        with _printing, redirect_stdout(sys.stderr):
            ort.preload_dlls()


def open_session(
    ort: ModuleType, model: str | bytes, settings: Mapping[str, str], options: Any = None
) -> Any:
    """Load a graph onto a GPU; ``settings`` are the provider's, ``options`` the session's.

    Raises MissingDependency where CUDA does not start, InvalidOption for a device that is not
    there, and what the library raises for a graph that it cannot load.
    """
    try:
        with quiet(ort):
            session = ort.InferenceSession(
                model,
                options or session_options(ort),
                providers=[(PROVIDER, dict(settings))],
                **NO_FALLBACK,
            )
    except Exception as error:  # the library's exception classes share no public base
        beyond = _BEYOND.search(str(error))
        if beyond:
            raise no_such_device(int(settings["device_id"]), int(beyond[1])) from error
        problem = starting_problem(ort, error)
        if problem is None:
            raise
        raise MissingDependency(f"CUDA does not start here: {problem}") from error
    if session.get_providers()[0] != PROVIDER:
        problem = starting_problem(ort) or "`poolc doctor` says what is missing"
        raise MissingDependency(f"CUDA does not start here: {problem}")
    return session


def starting_problem(ort: ModuleType, error: Exception | None = None) -> str | None:
    """Say why CUDA does not start, after a session that failed; None where something else did.

    ONNX Runtime prints which library it cannot load and says nothing of it. It has to try first: it
    loads its libraries in an order of its own.
    """
    failure = _FAILURE.search(str(error))
    if failure and int(failure[1]) in _NOT_STARTED:
        return f"{failure[2]} (CUDA error {failure[1]})"
    folder = Path(str(ort.__file__)).parent / "capi"
    if not (folder / _LIBRARY).exists():  # another system's names, or another build
        return None
    try:
        for name in (_SHARED, _LIBRARY):
            ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL)
    except OSError as missing:
        return str(missing)
    return None


@contextmanager
def quiet(ort: ModuleType) -> Iterator[None]:
    """Keep ONNX Runtime from printing, with every session, what its errors or poolc's say too."""
    _count_quiet(ort, 1)
    try:
        yield
    finally:
        _count_quiet(ort, -1)


def _count_quiet(ort: ModuleType, change: int) -> None:
    global _quiet
    with _logging:
        _quiet += change
        ort.set_default_logger_severity(_FATAL if _quiet else _WARNINGS)
