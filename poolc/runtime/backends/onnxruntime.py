"""ONNX Runtime on a CPU: one single-threaded session a graph, run from one thread a core.

The graphs run as the compiler wrote them, so that sessions load without graph work; weights are
external data, which ONNX Runtime maps instead of reading.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

from poolc.errors import ArtifactIncompatible, BackendError, MissingDependency
from poolc.model_cache.artifact import Artifact
from poolc.model_cache.host import host_class
from poolc.model_cache.manifest import PackedFor
from poolc.runtime.backends.base import Feeds, Fetches
from poolc.spec import MAIN_SET

_DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu")
_PROVIDER = "CPUExecutionProvider"
_KEPT_TOKENS = 1024


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
    owners = _recorded_over(Path(str(module.__file__)).parent)
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
    owners = []
    for name in _DISTRIBUTIONS:
        for distribution in importlib.metadata.distributions(name=name):
            place = Path(str(distribution.locate_file("onnxruntime")))
            if place.exists() and place.samefile(directory):
                owners.append(name)
                break
    return owners


class OnnxRuntimeBackend:
    """Runs an artifact's graphs with ONNX Runtime's CPU provider."""

    name = "onnxruntime-cpu"

    def __init__(self, artifact: Artifact) -> None:
        self._ort = import_onnxruntime()
        self._artifact = artifact
        self._packed = artifact.manifest.packed_for == PackedFor(runtime_version(), host_class())
        self._lock = threading.Lock()
        self._closed = False
        # Sets other than the main one are loaded when first asked for.
        self._sessions: dict[str, Any] = {MAIN_SET: self._open(MAIN_SET)}

    def run(self, output_set: str, feeds: Feeds) -> Fetches:
        """Run one micro-batch; see ``Backend.run``."""
        session = self._session(output_set)
        names = [output.name for output in self._artifact.manifest.graphs[output_set].outputs]
        try:
            fetched = session.run(names, dict(feeds), self._run_options(feeds))
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
        with self._lock:
            self._closed = True
            self._sessions.clear()

    def _session(self, output_set: str) -> Any:
        session = self._sessions.get(output_set)
        if session is not None:
            return session
        with self._lock:
            if self._closed:
                raise BackendError("the model was closed: load it again")
            if output_set not in self._sessions:
                self._sessions[output_set] = self._open(output_set)
            return self._sessions[output_set]

    def _open(self, output_set: str) -> Any:
        options = session_options(self._ort)
        graph = self._artifact.manifest.graphs[output_set]
        path = self._artifact.file((graph.packed if self._packed else None) or graph.file)
        try:
            session = self._ort.InferenceSession(str(path), options, providers=[_PROVIDER])
        except Exception as error:  # as above
            raise ArtifactIncompatible(
                f"ONNX Runtime {self._ort.__version__} cannot load {path.name}: {error}"
            ) from error
        if session.get_providers()[0] != _PROVIDER:
            raise BackendError(f"ONNX Runtime chose {session.get_providers()[0]}, not {_PROVIDER}")
        return session


def session_options(ort: ModuleType) -> Any:
    """Return the options every session of a compiled graph runs with."""
    options = ort.SessionOptions()
    # Parallelism comes from running micro-batches side by side: it scales better than splitting.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    # Memory patterns are kept per input shape: with mixed lengths that is a leak, not a cache.
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    return options
