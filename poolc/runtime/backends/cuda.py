"""ONNX Runtime on one NVIDIA GPU.

Large micro-batches run from a few threads, each on a stream of its own, so that copies and the
host's work overlap with kernels. Small ones, where launching kernels takes longer than running
them, are padded up to a bucket whose kernels were recorded once (a CUDA graph) and replayed; one
bucket after the other, for its buffers are fixed. Nothing ever runs on the CPU in the GPU's place.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from poolc.errors import ArtifactIncompatible, BackendError, InvalidOption, MissingDependency
from poolc.model_cache.artifact import Artifact
from poolc.runtime.backends.base import Feeds, Fetches
from poolc.runtime.backends.onnxruntime import import_onnxruntime, session_options
from poolc.runtime.packing import packing
from poolc.spec import (
    ATTENTION_MASK,
    INPUT_IDS,
    MAIN_SET,
    TOKEN_OFFSET,
    Precision,
    route_spec,
    set_route,
)

PROVIDER = "CUDAExecutionProvider"
# Micro-batches side by side: one computes while the host prepares and copies the next.
_STREAMS = 2
# Padded tokens up to which a micro-batch is replayed from a recorded graph.
_MOST_GRAPH_TOKENS = 2048
_GRAPH_ROWS = (1, 2, 4, 8, 16, 32, 64)
_GRAPH_LENGTHS = (16, 32, 64, 128, 256, 512)


def device_id(device: str | None) -> int:
    """Read ``cuda`` or ``cuda:1``. Raises InvalidOption."""
    name, _, number = (device or "cuda").partition(":")
    if name != "cuda" or not (number.isdigit() or not number):
        raise InvalidOption(
            f"device is {device!r}; an artifact for cuda runs on cuda, cuda:0, cuda:1, ...",
            param="device",
        )
    return int(number or 0)


class CudaBackend:
    """Runs an artifact's graphs with ONNX Runtime's CUDA provider on one device."""

    name = "onnxruntime-cuda"
    streams = _STREAMS
    spread = 1  # a small backlog is one micro-batch: a GPU runs it whole

    def __init__(self, artifact: Artifact, device: str | None = None, *, graphs: bool = True) -> None:
        self._ort = _import_cuda()
        self._artifact = artifact
        self._device = device_id(device)
        self._graphs = graphs
        self._plain: dict[str, Any] = {}
        self._recorded: dict[str, _Recorded] = {}
        self._lock = threading.Lock()
        self._closed = False
        self.executor = ThreadPoolExecutor(_STREAMS, thread_name_prefix="poolc-cuda")
        self._session(MAIN_SET)

    def run(self, output_set: str, feeds: Feeds, *, alone: bool = False) -> Fetches:
        """Run one micro-batch; see ``Backend.run``."""
        names = [output.name for output in self._artifact.manifest.graphs[output_set].outputs]
        bucket = _bucket(feeds[INPUT_IDS].shape) if self._graphs else None
        try:
            if bucket is not None:
                return self._replayed(output_set).run(feeds, bucket)
            session = self._session(output_set)
            fetched = session.run(names, self._inputs(output_set, feeds))
            return dict(zip(names, fetched, strict=True))
        except (BackendError, ArtifactIncompatible):
            raise
        except Exception as error:  # the library's exception classes share no public base
            raise BackendError(f"ONNX Runtime failed on {PROVIDER}: {error}") from error

    def close(self) -> None:
        """Drop the sessions and the threads."""
        with self._lock:
            self._closed = True
            self._plain.clear()
            self._recorded.clear()
        self.executor.shutdown(wait=False)

    def _inputs(self, output_set: str, feeds: Feeds) -> dict[str, npt.NDArray[Any]]:
        graph = self._artifact.manifest.graphs[output_set]
        if all(value.name != TOKEN_OFFSET for value in graph.inputs):
            return dict(feeds)
        lengths = feeds[ATTENTION_MASK].sum(axis=1)
        return {**feeds, **packing(lengths, feeds[ATTENTION_MASK].shape[1])}

    def _session(self, output_set: str) -> Any:
        with self._lock:
            self._check_open()
            if output_set not in self._plain:
                self._plain[output_set] = self._open(output_set)
            return self._plain[output_set]

    def _replayed(self, output_set: str) -> _Recorded:
        with self._lock:
            self._check_open()
            if output_set not in self._recorded:
                spec = route_spec(self._artifact.manifest.spec, set_route(output_set))
                session = self._open(output_set, enable_cuda_graph="1")
                graph = self._artifact.manifest.graphs[output_set]
                packed = any(value.name == TOKEN_OFFSET for value in graph.inputs)
                self._recorded[output_set] = _Recorded(
                    self._ort, session, self._device, spec.pad_token_id, packed
                )
            return self._recorded[output_set]

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError("the model was closed: load it again")

    def _open(self, output_set: str, **more: str) -> Any:
        options = session_options(self._ort)
        path = self._artifact.file(self._artifact.manifest.graphs[output_set].file)
        # Rounding to tf32 is for those who asked for less than fp32.
        exact = self._artifact.manifest.precision is Precision.FP32
        settings = {"device_id": str(self._device), "use_tf32": "0" if exact else "1", **more}
        try:
            session = self._ort.InferenceSession(
                str(path), options, providers=[(PROVIDER, settings)]
            )
        except Exception as error:  # as above
            raise ArtifactIncompatible(
                f"ONNX Runtime {self._ort.__version__} cannot load {path.name} on {PROVIDER}: "
                f"{error}"
            ) from error
        if session.get_providers()[0] != PROVIDER:
            raise MissingDependency(
                f"ONNX Runtime would run {path.name} on {session.get_providers()[0]}: CUDA does "
                "not start here; `poolc doctor` says what is missing"
            )
        return session


@dataclass(slots=True)
class _Buffers:
    """A bucket's fixed buffers on the device, and what its kernels are recorded under."""

    binding: Any
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    options: Any


class _Recorded:
    """Graphs of kernels by bucket, of one session; one runs at a time."""

    def __init__(
        self, ort: ModuleType, session: Any, device: int, pad_token_id: int, packed: bool
    ) -> None:
        self._ort, self._session, self._device = ort, session, device
        self._pad, self._packed = pad_token_id, packed
        self._buckets: dict[tuple[int, int], _Buffers] = {}
        self._lock = threading.Lock()

    def run(self, feeds: Feeds, bucket: tuple[int, int]) -> Fetches:
        """Run a micro-batch padded up to ``bucket`` (rows, tokens a row)."""
        rows = feeds[INPUT_IDS].shape[0]
        filled = filled_up(feeds, bucket, self._pad, packed=self._packed)
        with self._lock:
            if bucket not in self._buckets:
                self._buckets[bucket] = self._record(filled)
            found = self._buckets[bucket]
            for name, array in filled.items():
                found.inputs[name].update_inplace(array)
            self._session.run_with_iobinding(found.binding, found.options)
            return {name: value.numpy()[:rows] for name, value in found.outputs.items()}

    def _record(self, filled: Mapping[str, npt.NDArray[Any]]) -> _Buffers:
        value = self._ort.OrtValue
        binding = self._session.io_binding()
        inputs = {
            name: value.ortvalue_from_numpy(array, "cuda", self._device)
            for name, array in filled.items()
        }
        sizes = dict(zip(("batch", "seq"), filled[INPUT_IDS].shape, strict=True))
        outputs = {}
        for output in self._session.get_outputs():
            shape = [sizes[d] if isinstance(d, str) else d for d in output.shape]
            outputs[output.name] = value.ortvalue_from_shape_and_type(
                shape, np.float32, "cuda", self._device
            )
        for name, one in inputs.items():
            binding.bind_ortvalue_input(name, one)
        for name, one in outputs.items():
            binding.bind_ortvalue_output(name, one)
        options = self._ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(len(self._buckets) + 1))
        return _Buffers(binding, inputs, outputs, options)


def filled_up(
    feeds: Feeds, bucket: tuple[int, int], pad_token_id: int, *, packed: bool
) -> dict[str, npt.NDArray[Any]]:
    """Pad a micro-batch to ``bucket`` (rows, tokens a row), with packing for graphs that want it.

    Without padding the number of tokens has to be fixed too: rows times tokens a row. As many rows
    again take up those that the texts do not have, in pieces no longer than a text.
    """
    rows, seq = bucket
    made = {}
    for name, array in feeds.items():
        made[name] = np.zeros((2 * rows if packed else rows, seq), np.int64)
        if name == INPUT_IDS:
            made[name].fill(pad_token_id)
        made[name][: array.shape[0], : array.shape[1]] = array
    mask = made[ATTENTION_MASK]
    if not packed:
        mask[feeds[ATTENTION_MASK].shape[0] :, 0] = 1  # a softmax over nothing is no number
        return made
    lengths = mask.sum(axis=1)
    left = rows * seq - int(lengths.sum())
    for row in range(len(feeds[INPUT_IDS]), 2 * rows):
        lengths[row] = min(left, seq)
        left -= int(lengths[row])
    return {**made, **packing(lengths, seq)}


def _bucket(shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Return the smallest bucket that a micro-batch fits into; None: it is not worth one."""
    rows = next((n for n in _GRAPH_ROWS if n >= shape[0]), None)
    seq = next((n for n in _GRAPH_LENGTHS if n >= shape[1]), None)
    if rows is None or seq is None or rows * seq > _MOST_GRAPH_TOKENS:
        return None
    return rows, seq


def _import_cuda() -> ModuleType:
    """Import ONNX Runtime with its CUDA provider. Raises MissingDependency."""
    ort = import_onnxruntime()
    if PROVIDER not in ort.get_available_providers():
        raise MissingDependency(
            "the artifact is for cuda, and the ONNX Runtime that is installed is its CPU build: "
            'pip uninstall onnxruntime, then pip install "poolc[gpu]"'
        )
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # CUDA and cuDNN from their pip packages, where they are
    return ort
