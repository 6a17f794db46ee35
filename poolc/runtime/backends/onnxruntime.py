"""ONNX Runtime on a CPU: one single-threaded session a graph, run from one thread a core.

A request that nothing runs beside is faster with all cores on one micro-batch: it gets a second
session with several threads, over the same mapped weights. The graphs run as the compiler wrote
them, so that sessions load without graph work; weights are external data, which ONNX Runtime maps
instead of reading.
"""

from __future__ import annotations

import importlib
import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

from poolc.errors import ArtifactIncompatible, BackendError, MissingDependency
from poolc.model_cache.artifact import Artifact
from poolc.model_cache.host import host_class, runtimes_on_path
from poolc.model_cache.manifest import PackedFor
from poolc.runtime.backends.base import Feeds, Fetches
from poolc.runtime.cores import allowed_cores, native_threads, shared_executor, thread_cpu_s
from poolc.spec import MAIN_SET

_DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu")
_PROVIDER = "CPUExecutionProvider"
_KEPT_TOKENS = 1024
# Threads on a lone micro-batch where the artifact records none: more rarely pay for short texts.
_LONE_THREADS = 4
# Weights that are not packed for this machine are held by each session: only small ones are twice.
_SMALL_BYTES = 16 << 20


def import_onnxruntime() -> ModuleType:
    """Import ONNX Runtime, or say what to install.

    Raises MissingDependency where it is not installed, or where the CPU and the GPU wheel are both
    recorded over the directory that is imported: one overwrote files of the other.
    """
    try:
        module = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise MissingDependency(
            f'ONNX Runtime cannot be imported ({error}): pip install "poolc[cpu]"'
        ) from error
    # Only where records of both are about: reading them takes as long as loading the library.
    both = "onnxruntime_gpu-" in runtimes_on_path()
    owners = _recorded_over(Path(str(module.__file__)).parent) if both else []
    if len(owners) > 1:
        raise MissingDependency(
            f"{' and '.join(owners)} are both installed over {Path(str(module.__file__)).parent}: "
            f"pip uninstall {' '.join(owners)}, then install only one of poolc[cpu] and poolc[gpu]"
        )
    return module


def runtime_version() -> str:
    """Return the version of the ONNX Runtime that is imported."""
    return str(import_onnxruntime().__version__)


def _recorded_over(directory: Path) -> list[str]:
    """Return the distributions whose record puts an ``onnxruntime`` package at ``directory``."""
    from importlib import metadata

    owners = []
    for name in _DISTRIBUTIONS:
        for distribution in metadata.distributions(name=name):
            place = Path(str(distribution.locate_file("onnxruntime")))
            if place.exists() and place.samefile(directory):
                owners.append(name)
                break
    return owners


class OnnxRuntimeBackend:
    """Runs an artifact's graphs with ONNX Runtime's CPU provider."""

    name = "onnxruntime-cpu"

    def __init__(self, artifact: Artifact) -> None:
        self.streams = self.spread = allowed_cores()
        self._ort = import_onnxruntime()
        self._artifact = artifact
        self._packed = artifact.manifest.packed_for == PackedFor(runtime_version(), host_class())
        self._sessions = _Sessions(self._open, 1)
        # Sets other than the main one are loaded when first asked for.
        self._sessions.get(MAIN_SET)
        self._lone_sessions = _Sessions(self._open, self._lone_threads())
        self._pool_threads: set[int] = set()  # by the system's ids
        self._lone_before: set[str] = set()  # output sets that a lone request asked for

    @property
    def pool_cpu_s(self) -> float:
        """See ``Backend``: the threads that help with lone micro-batches."""
        return sum(map(thread_cpu_s, self._pool_threads))

    @property
    def executor(self) -> ThreadPoolExecutor:
        """The process's one executor, which all models share."""
        return shared_executor()

    def run(self, output_set: str, feeds: Feeds, *, alone: bool = False) -> Fetches:
        """Run one micro-batch; see ``Backend.run``."""
        session = self._session(output_set, alone)
        graph = self._artifact.manifest.graphs[output_set]
        names = [output.name for output in graph.outputs]
        # Graphs that engines are built from take int32, as their manifest says.
        dtypes = {one.name: one.dtype for one in graph.inputs}
        typed = {
            name: array.astype(dtypes.get(name, array.dtype), copy=False)
            for name, array in feeds.items()
        }
        try:
            fetched = session.run(names, typed, self._run_options(feeds))
            return dict(zip(names, fetched, strict=True))
        except Exception as error:  # the library's exception classes share no public base
            raise BackendError(f"ONNX Runtime failed: {error}") from error

    def _run_options(self, feeds: Feeds) -> Any:
        """What a micro-batch of a long text took goes back when it is done; small ones keep it."""
        if max(array.size for array in feeds.values()) <= _KEPT_TOKENS:
            return None
        options = self._ort.RunOptions()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        return options

    def close(self) -> None:
        """Drop the sessions."""
        self._sessions.close()
        self._lone_sessions.close()

    def _session(self, output_set: str, alone: bool) -> Any:
        if not alone or self._lone_sessions.threads == 1:
            return self._sessions.get(output_set)
        # A process that embeds one text and ends does not wait for a second session.
        if output_set not in self._lone_before:
            self._lone_before.add(output_set)
            return self._sessions.get(output_set)
        return self._lone_sessions.get(output_set)

    def _lone_threads(self) -> int:
        """Return how many threads a lone micro-batch gets: 1 where weights would be duplicated."""
        manifest = self._artifact.manifest
        sizes = self._artifact.sizes().items()
        weights = sum(size for name, size in sizes if name.endswith((".onnx", ".onnx.data")))
        if not self._packed and weights > _SMALL_BYTES:
            return 1
        return min(allowed_cores(), int(manifest.tuning.get("lone_threads", _LONE_THREADS)))

    def _open(self, output_set: str, threads: int) -> Any:
        options = session_options(self._ort, threads)
        graph = self._artifact.manifest.graphs[output_set]
        path = self._artifact.file((graph.packed if self._packed else None) or graph.file)
        before = native_threads() if threads > 1 else frozenset()
        try:
            session = self._ort.InferenceSession(str(path), options, providers=[_PROVIDER])
        except Exception as error:  # as above
            raise ArtifactIncompatible(
                f"ONNX Runtime {self._ort.__version__} cannot load {path.name}: {error}"
            ) from error
        if session.get_providers()[0] != _PROVIDER:
            raise BackendError(f"ONNX Runtime chose {session.get_providers()[0]}, not {_PROVIDER}")
        if threads > 1:
            self._pool_threads |= native_threads() - before
        return session


class _Sessions:
    """Sessions with the same number of threads, by output set; opened when first asked for."""

    def __init__(self, open_session: Callable[[str, int], Any], threads: int) -> None:
        self.threads = threads
        self._open = open_session
        self._opened: dict[str, Any] = {}
        self._closed = False
        self._lock = threading.Lock()
        _all_sessions.add(self)

    def get(self, output_set: str) -> Any:
        """Return a session. Raises BackendError once closed."""
        session = self._opened.get(output_set)
        if session is not None:
            return session
        with self._lock:
            if self._closed:
                raise BackendError("the model was closed: load it again")
            if output_set not in self._opened:
                self._opened[output_set] = self._open(output_set, self.threads)
            return self._opened[output_set]

    def close(self) -> None:
        """Drop all sessions."""
        with self._lock:
            self._closed = True
            self._opened.clear()

    def survive_fork(self) -> None:
        """Make a forked child's copy usable: threads of sessions are not there any more.

        Ending such a session would wait for its threads for ever, so it is never destroyed.
        """
        self._lock = threading.Lock()
        if self.threads > 1:
            import ctypes

            for session in self._opened.values():
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))
            self._opened = {}


_all_sessions: weakref.WeakSet[_Sessions] = weakref.WeakSet()


def _survive_fork() -> None:
    for sessions in tuple(_all_sessions):
        sessions.survive_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_survive_fork)


def session_options(ort: ModuleType, threads: int = 1) -> Any:
    """Return the options every session of a compiled graph runs with.

    One thread but for lone micro-batches: running several side by side scales better.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that wait for the next operator spin, but not for the next request.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    # Memory patterns are kept per input shape: with mixed lengths that is a leak, not a cache.
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    return options
