"""ONNX Runtime on one NVIDIA GPU.

Micro-batches run from two threads, so that the host prepares and copies one while another computes.
Small ones, where launching kernels takes longer than running them, are padded up to a bucket whose
kernels were recorded once (a CUDA graph) and are replayed, by a session of its own; where there is
no room for that, they are launched. All sessions compute with the same weights. Nothing ever runs
on the CPU in the GPU's place.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from poolc.errors import (
    ArtifactIncompatible,
    BackendError,
    DeviceOutOfMemory,
    InvalidOption,
    MissingDependency,
    PoolcError,
)
from poolc.model_cache.artifact import Artifact
from poolc.runtime.backends.base import Feeds, Fetches
from poolc.runtime.backends.cuda_library import PROVIDER, load_cuda, open_session
from poolc.runtime.backends.cuda_weights import DeviceWeights, device_weights
from poolc.runtime.backends.onnxruntime import import_onnxruntime, session_options
from poolc.runtime.backends.turns import turns
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

# Micro-batches side by side: one computes while the host prepares and copies the next.
_STREAMS = 2
# Padded tokens up to which a micro-batch is replayed from a recorded graph.
_MOST_GRAPH_TOKENS = 2048
# ONNX Runtime runs a graph once as it is before it records.
_RUNS_TO_RECORD = 2
# Rows of an attention mask of any other length have no fast kernel.
_ALIGNMENT = 8
log = logging.getLogger(__name__)
_GRAPH_ROWS = (1, 2, 4, 8, 16, 32, 64)
_GRAPH_LENGTHS = (16, 32, 64, 128, 256, 512)


def device_id(device: str | None) -> int:
    """Read ``cuda`` or ``cuda:1``. Raises InvalidOption."""
    name, _, number = (device or "cuda").partition(":")
    if name != "cuda" or not ((number.isdecimal() and number.isascii()) or not number):
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
    pool_cpu_s = 0.0  # the library computes on the device

    def __init__(
        self, artifact: Artifact, device: str | None = None, *, graphs: bool = True
    ) -> None:
        self._ort = _import_cuda()
        self.artifact = artifact
        self._device = device_id(device)
        self._graphs = graphs
        self._models: dict[str, _Model] = {}
        self._lock = threading.Lock()
        self._closed = False
        self.executor = ThreadPoolExecutor(_STREAMS, thread_name_prefix="poolc-cuda")
        # ONNX Runtime keeps what it recorded by thread: another one would record anew.
        self._recorder = ThreadPoolExecutor(1, thread_name_prefix="poolc-cuda-graphs")
        self._weights = device_weights(self._ort, artifact, self._device)
        self._model(MAIN_SET)

    def run(self, output_set: str, feeds: Feeds, *, alone: bool = False) -> Fetches:
        """Run one micro-batch; see ``Backend.run``. One that does not fit into memory is halved."""
        model = self._model(output_set)
        try:
            return model.run(feeds)
        except Exception as error:  # the library's exception classes share no public base
            rows = len(feeds[INPUT_IDS])
            if not _is_out_of_memory(error):
                raise BackendError(f"ONNX Runtime failed on {PROVIDER}: {error}") from error
            if rows == 1:
                raise DeviceOutOfMemory(f"one text does not fit: {error}") from error
        parts = [
            self.run(output_set, {name: array[half] for name, array in feeds.items()})
            for half in (slice(0, rows // 2), slice(rows // 2, rows))
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def close(self) -> None:
        """Drop the sessions; the threads end with this object."""
        with self._lock, turns.opening():
            self._closed = True
            self._models.clear()
            self._weights = None  # they stay until the last micro-batch that is under way is done

    def _model(self, output_set: str) -> _Model:
        with self._lock:
            if self._closed:
                raise BackendError("the model was closed: load it again")
            if output_set not in self._models:
                manifest = self.artifact.manifest
                graph = manifest.graphs[output_set]
                facts = _Facts(
                    self._device,
                    tuple(output.name for output in graph.outputs),
                    any(value.name == TOKEN_OFFSET for value in graph.inputs),
                    route_spec(manifest.spec, set_route(output_set)).pad_token_id,
                    self._recorder if self._graphs else None,
                )
                with turns.opening():
                    opening = partial(self._open, graph.file, self._weights)
                    self._models[output_set] = _Model(self._ort, opening, facts)
            return self._models[output_set]

    def _open(self, file: str, weights: DeviceWeights | None, records: bool) -> Any:
        # Rounding to tf32 is for those who asked for less than fp32.
        exact = self.artifact.manifest.precision is Precision.FP32
        settings = {
            "device_id": str(self._device),
            "use_tf32": "0" if exact else "1",
            "enable_cuda_graph": "1" if records else "0",
        }
        path, options = self.artifact.file(file), session_options(self._ort)
        if weights is not None:
            weights.share(file, options)
        try:
            return open_session(self._ort, str(path), settings, options)
        except PoolcError:
            raise
        except Exception as error:  # as above
            raise ArtifactIncompatible(
                f"ONNX Runtime {self._ort.__version__} cannot load {file} on {PROVIDER}: {error}"
            ) from error


@dataclass(frozen=True, slots=True)
class _Facts:
    """What is known of a graph; ``recorder`` is the thread that replays, where one does."""

    device: int
    outputs: tuple[str, ...]
    packed: bool
    pad_token_id: int
    recorder: Executor | None


@dataclass(slots=True)
class _Buffers:
    """A bucket's fixed buffers on the device, and what its kernels are recorded under."""

    binding: Any
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    options: Any


class _Model:
    """A session, and graphs of its kernels by bucket."""

    def __init__(self, ort: ModuleType, open_session: Callable[[bool], Any], facts: _Facts) -> None:
        self._ort, self._open, self._facts = ort, open_session, facts
        self._session = open_session(False)
        self._recorded: Any = None  # opened with the first bucket
        self._buckets: dict[tuple[int, int], _Buffers] = {}
        self._may_record = True

    def run(self, feeds: Feeds) -> Fetches:
        """Run a micro-batch: replayed where there is a bucket for it."""
        recorder = self._facts.recorder
        bucket = None if recorder is None else _bucket(feeds[INPUT_IDS].shape)
        if recorder is None or bucket is None:
            return self._launched(feeds)
        return recorder.submit(self._replayed, feeds, bucket).result()

    def _launched(self, feeds: Feeds) -> Fetches:
        names = self._facts.outputs
        with turns.shared():
            fetched = self._session.run(names, self._inputs(feeds))
        return dict(zip(names, fetched, strict=True))

    def _inputs(self, feeds: Feeds) -> dict[str, npt.NDArray[Any]]:
        if not self._facts.packed:
            return aligned(feeds, self._facts.pad_token_id)
        lengths = feeds[ATTENTION_MASK].sum(axis=1)
        return {**feeds, **packing(lengths, feeds[ATTENTION_MASK].shape[1])}

    def _replayed(self, feeds: Feeds, bucket: tuple[int, int]) -> Fetches:
        rows = feeds[INPUT_IDS].shape[0]
        filled = filled_up(feeds, bucket, self._facts.pad_token_id, packed=self._facts.packed)
        found = self._buckets.get(bucket)
        if found is None and self._may_record:
            found = self._newly_recorded(bucket, filled)
        if found is None:
            return self._launched(feeds)
        with turns.shared():
            for name, array in filled.items():
                found.inputs[name].update_inplace(array)
            self._recorded.run_with_iobinding(found.binding, found.options)
            return {name: value.numpy()[:rows] for name, value in found.outputs.items()}

    def _newly_recorded(
        self, bucket: tuple[int, int], filled: Mapping[str, npt.NDArray[Any]]
    ) -> _Buffers | None:
        """Record a bucket; None where there is no room for it, and from then on for none, or while
        other sessions are opened.
        """
        try:
            with turns.alone_unless_opening() as may:
                if not may:
                    return None
                if self._recorded is None:
                    self._recorded = self._open(True)
                found = self._record(filled)
                for _ in range(_RUNS_TO_RECORD):
                    self._recorded.run_with_iobinding(found.binding, found.options)
        except Exception as error:  # the library's exception classes share no public base
            if not _is_out_of_memory(error):
                raise
        else:
            self._buckets[bucket] = found
            return found
        self._may_record = False
        log.warning("no memory is left for CUDA graphs: short texts are answered without")
        # A recording that broke off may have left its session's stream in the middle of it.
        with turns.opening():
            self._buckets.clear()
            self._recorded = None
        return None

    def _record(self, filled: Mapping[str, npt.NDArray[Any]]) -> _Buffers:
        value = self._ort.OrtValue
        binding = self._recorded.io_binding()
        inputs = {
            name: value.ortvalue_from_numpy(array, "cuda", self._facts.device)
            for name, array in filled.items()
        }
        sizes = dict(zip(("batch", "seq"), filled[INPUT_IDS].shape, strict=True))
        outputs = {}
        for output in self._recorded.get_outputs():
            shape = [sizes[d] if isinstance(d, str) else d for d in output.shape]
            outputs[output.name] = value.ortvalue_from_shape_and_type(
                shape, np.float32, "cuda", self._facts.device
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


def aligned(feeds: Feeds, pad_token_id: int) -> dict[str, npt.NDArray[np.int64]]:
    """Pad every row of a micro-batch to a multiple of 8 tokens."""
    missing = -feeds[INPUT_IDS].shape[1] % _ALIGNMENT
    if not missing:
        return dict(feeds)
    return {
        name: np.pad(
            array, ((0, 0), (0, missing)), constant_values=pad_token_id if name == INPUT_IDS else 0
        )
        for name, array in feeds.items()
    }


def _is_out_of_memory(error: Exception) -> bool:
    """CUDA's words, those of ONNX Runtime's arena, and the status of cuBLAS and cuDNN."""
    said = str(error).lower()
    return any(
        how in said for how in ("out of memory", "failed to allocate memory", "alloc_failed")
    )


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
    load_cuda(ort)
    return ort
