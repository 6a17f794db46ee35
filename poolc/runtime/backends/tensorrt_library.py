"""The TensorRT and TensorRT-RTX libraries: importing either, what they say, and loading a plan.

Both have one interface, so that the module is passed to whoever builds or runs an engine. Knows
nothing about graphs, artifacts or devices.
"""

from __future__ import annotations

import importlib
import itertools
import threading
from collections import deque
from types import ModuleType
from typing import Any, Protocol
from weakref import WeakKeyDictionary

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
_loggers: WeakKeyDictionary[ModuleType, Any] = WeakKeyDictionary()
_lock = threading.Lock()


class Messages(Protocol):
    """A logger of the library that keeps the last warnings and errors, in order."""

    warnings: deque[str]
    errors: deque[str]

    def mark(self) -> int:
        """Return where the messages are at, for ``errors_since``."""
        ...

    def errors_since(self, mark: int) -> tuple[str, ...]:
        """Return the errors since then, of whatever thread: the library does not say whose."""
        ...


class Heard:
    """What a library says of failures from ``begin`` on."""

    def __init__(self, messages: Messages) -> None:
        self._messages = messages
        self.begin()

    def begin(self) -> None:
        """Forget what was said so far."""
        self._mark = self._messages.mark()

    def said(self) -> str:
        """Return all of it, each sentence once."""
        return "; ".join(dict.fromkeys(self._messages.errors_since(self._mark)))


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


def load_engine(
    trt: ModuleType, content: bytes, *, version_compatible: bool = False
) -> tuple[Any, Any]:
    """Return a runtime and the engine that it makes of a plan; None for one that it refuses.

    The runtime has to outlive the engine.
    """
    runtime = trt.Runtime(messages(trt))
    if version_compatible:  # such a plan brings code of its library along
        runtime.engine_host_code_allowed = True
    return runtime, runtime.deserialize_cuda_engine(content)


def messages(trt: ModuleType) -> Any:
    """Return the logger of a library: see ``Messages``.

    There is one in a process, since the library says that it has only one: while anything lives
    that was made with a logger, "the current new logger is ignored".
    """
    with _lock:
        if trt not in _loggers:
            _loggers[trt] = _new_logger(trt)
        return _loggers[trt]


def _new_logger(trt: ModuleType) -> Any:
    base = trt.ILogger  # not the module, which this must not keep
    failures, warning = (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR), trt.ILogger.WARNING

    class _Messages(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            base.__init__(self)
            self.warnings: deque[str] = deque(maxlen=_KEPT)
            self.errors: deque[str] = deque(maxlen=_KEPT)
            # The library calls from any thread: each step here is atomic.
            self._numbers = itertools.count()
            self._numbered: deque[tuple[int, str]] = deque(maxlen=_KEPT)

        def log(self, severity: Any, msg: str) -> None:
            if severity in failures:
                self.errors.append(msg.strip())
                self._numbered.append((next(self._numbers), msg.strip()))
            elif severity == warning:
                self.warnings.append(msg.strip())

        def mark(self) -> int:
            return next(self._numbers)

        def errors_since(self, mark: int) -> tuple[str, ...]:
            return tuple(said for number, said in tuple(self._numbered) if number > mark)

    return _Messages()
