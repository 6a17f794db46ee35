"""The TensorRT and TensorRT-RTX libraries: importing either, and what they say.

Both have one interface, so that the module is passed to whoever builds or runs an engine. Knows
nothing about graphs, artifacts or devices.
"""

from __future__ import annotations

import importlib
from collections import deque
from types import ModuleType
from typing import Any, Protocol

from poolc.errors import MissingDependency
from poolc.spec import Target

# The package that brings everything, and the module of its bindings alone, which CI installs.
MODULES = {
    Target.TENSORRT: ("tensorrt", "tensorrt_bindings"),
    Target.TENSORRT_RTX: ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
INSTALL = {
    Target.TENSORRT: 'pip install "poolc[tensorrt]"',
    Target.TENSORRT_RTX: 'pip install "poolc[tensorrt-rtx]"',
}
_KEPT = 100  # messages of a process that runs for months
_OLDEST_MAJOR = {Target.TENSORRT: 11, Target.TENSORRT_RTX: 1}


class Messages(Protocol):
    """A logger of the library that keeps the last warnings and errors, in order."""

    warnings: deque[str]
    errors: deque[str]


def import_tensorrt(target: Target) -> ModuleType:
    """Import the library of a target. Raises MissingDependency with what to install."""
    problems = []
    for name in MODULES[target]:
        try:
            module = importlib.import_module(name)
        except (ImportError, OSError) as error:  # the wheel is there, a library of it is not
            problems.append(f"{name}: {error}")
            continue
        major = int(str(module.__version__).split(".")[0])
        if major < _OLDEST_MAJOR[target]:
            raise MissingDependency(
                f"{name} {module.__version__} is installed; target {target} needs version "
                f"{_OLDEST_MAJOR[target]} or later: {INSTALL[target]}"
            )
        return module
    raise MissingDependency(
        f"target {target} needs its library, which cannot be imported ({'; '.join(problems)}): "
        f"{INSTALL[target]}"
    )


def library_name(target: Target) -> str:
    """Return what manifests call the library of a target."""
    return MODULES[target][0]


def messages(trt: ModuleType) -> Any:
    """Return a logger, to be kept for as long as what was made with it: see ``Messages``."""

    class _Messages(trt.ILogger):  # type: ignore[name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.warnings: deque[str] = deque(maxlen=_KEPT)
            self.errors: deque[str] = deque(maxlen=_KEPT)

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.errors.append(msg.strip())
            elif severity == trt.ILogger.WARNING:
                self.warnings.append(msg.strip())

    return _Messages()
