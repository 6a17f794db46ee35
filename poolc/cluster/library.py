"""Ray itself: importing it, and being connected to a cluster. Knows no models."""

from __future__ import annotations

import importlib
import io
import logging
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from poolc.errors import BackendError, MissingDependency

# Parts in and, from machines that cannot reach the output, parts out; Ray spills what is more.
_LOCAL_STORE_BYTES = 1 << 30
LOCAL = "local"


def import_ray(module: str = "", purpose: str = "running on Ray") -> Any:
    """Return ``ray`` or a module of it. Raises MissingDependency.

    Ray tells its makers how it is used unless it is told not to, before it is imported: it is.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    name = f"ray.{module}" if module else "ray"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f'{purpose} needs {error.name}, which is not installed: pip install "poolc[ray]"'
        ) from error


@contextmanager
def connected(address: str | None = None) -> Iterator[Any]:
    """Yield ``ray``, connected to a cluster; a connection that was there already stays.

    ``address`` is what ``ray.init`` takes; without one RAY_ADDRESS is, and else a cluster of this
    machine alone is started, and ended with the context. Raises MissingDependency, BackendError
    where the cluster does not answer.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    address = address or os.environ.get("RAY_ADDRESS") or LOCAL
    own: dict[str, Any] = {}
    if address == LOCAL:
        own = {"include_dashboard": False, "object_store_memory": _LOCAL_STORE_BYTES}
    try:
        # What workers print is in Ray's logs: standard output is for rows alone.
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise BackendError(f"cannot use the Ray cluster {address}: {error}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def rows_alone() -> Iterator[None]:
    """Keep standard output for what is written to its buffer: text goes to standard error.

    Ray tells of workers that were lost by printing, whatever it is told about logs.
    """
    with redirect_stdout(_Aside(sys.stdout.buffer)):
        yield


class _Aside(io.TextIOBase):
    """Text to standard error; ``buffer`` is still standard output."""

    def __init__(self, buffer: Any) -> None:
        self.buffer = buffer

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def own_cores() -> int | None:
    """Return how many cores Ray keeps for this actor, at least 1; None outside of Ray."""
    ray = import_ray()
    if not ray.is_initialized():
        return None
    given: float = ray.get_runtime_context().get_assigned_resources().get("CPU", 0)
    return max(math.ceil(given), 1)
