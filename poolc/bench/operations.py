"""How many operations a model's matrix products take, counted from a run of its own graph.

ONNX Runtime's profiler tells the shapes of what every node was given: whatever the graph is made
of, fused, packed or quantised, its products are counted as they were computed. An engine's are
those of the graph that it was built from, on a CPU. Embeddings, norms and activations are not what
a product's peak bounds, and are left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from poolc.bench import engine_graphs
from poolc.bench.peaks import CPU_PROVIDER
from poolc.errors import BackendError
from poolc.runtime.backends.cuda import device_id
from poolc.runtime.backends.cuda_library import open_session
from poolc.runtime.backends.onnxruntime import import_onnxruntime, session_options
from poolc.runtime.engine import Engine
from poolc.runtime.packing import packing
from poolc.runtime.request import TokenSequence
from poolc.spec import (
    ATTENTION_MASK,
    ENGINE_TARGETS,
    MAIN_SET,
    TOKEN_OFFSET,
    TOKEN_TYPE_IDS,
    Target,
)

# Each has what is multiplied first; none of the compiler's graphs transposes it.
_PRODUCTS = ("MatMul", "Gemm", "FusedMatMul", "FusedGemm", "MatMulInteger", "MatMulIntegerToFloat")
_ATTENTIONS = ("Attention", "MultiHeadAttention", "PackedMultiHeadAttention")
_BYTES = {"float": 4, "float16": 2, "bfloat16": 2}
_LENGTHS = (32, 64, 128)

Shape = Sequence[int]


@dataclass(frozen=True, slots=True)
class Operations:
    """Floating-point or integer operations of a text of n tokens: a + b n + c n^2."""

    factors: tuple[float, float, float]
    weight_bytes: int  # of the matrices that texts are multiplied with, each once

    def of(self, lengths: Sequence[int]) -> float:
        """Return the operations of texts of these lengths, without padding."""
        sizes = np.asarray(lengths, np.float64)
        return float(sum((f * sizes**power).sum() for power, f in enumerate(self.factors)))


def counted(engine: Engine) -> Operations:
    """Count what the main outputs take. Runs three texts: on the device, of engines on the CPU."""
    longest = min(_LENGTHS[-1], engine.max_length)
    lengths = [max(1, longest * n // _LENGTHS[-1]) for n in _LENGTHS]
    with TemporaryDirectory() as folder:
        path, device = _runnable(engine, Path(folder))
        runs = [_events(path, device, _feeds(engine, n)) for n in lengths]
    totals = [sum(map(_operations, events)) for events in runs]
    if engine.artifact.manifest.target in ENGINE_TARGETS:
        weight_bytes = engine_graphs.weight_bytes(engine_graphs.onnx_of(engine))
    else:
        weight_bytes = sum(map(_weight_bytes, runs[0]))
    if len(set(lengths)) < len(lengths):  # a model of very short texts
        return Operations((0.0, totals[-1] / lengths[-1], 0.0), weight_bytes)
    powers = np.vander(np.asarray(lengths, np.float64), 3, increasing=True)
    fixed, linear, square = np.linalg.solve(powers, np.asarray(totals, np.float64)).tolist()
    return Operations((fixed, linear, square), weight_bytes)


def _runnable(engine: Engine, folder: Path) -> tuple[Path, int | None]:
    """Return the file of the graph to run, and the number of the GPU; None: on the CPU."""
    manifest = engine.artifact.manifest
    if manifest.target in ENGINE_TARGETS:
        return engine_graphs.write_in_fp32(engine_graphs.onnx_of(engine), folder), None
    device = None if manifest.target is Target.CPU else device_id(engine.devices[0])
    return engine.artifact.file(manifest.graphs[MAIN_SET].file), device


def _feeds(engine: Engine, num_tokens: int) -> dict[str, Any]:
    """Return the inputs of one text of so many tokens, in the types of the graph."""
    inputs = engine.artifact.manifest.graphs[MAIN_SET].inputs
    segments = np.zeros(num_tokens, np.int64) if TOKEN_TYPE_IDS in engine.spec.inputs else None
    token = next(i for i in (1, 2) if i != engine.spec.pad_token_id) % engine.spec.vocab_size
    feeds: dict[str, Any] = dict(
        engine.feeds([TokenSequence(np.full(num_tokens, token, np.int64), segments)], "")
    )
    if any(value.name == TOKEN_OFFSET for value in inputs):
        feeds |= packing(feeds[ATTENTION_MASK].sum(axis=1), num_tokens)
    types = {value.name: value.dtype for value in inputs}
    return {name: array.astype(types[name], copy=False) for name, array in feeds.items()}


def _events(path: Path, device: int | None, feeds: Mapping[str, Any]) -> list[Any]:
    """Run one text under the profiler; return what it told of each node."""
    ort = import_onnxruntime()
    with TemporaryDirectory() as folder:
        options = session_options(ort)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        try:
            if device is None:
                session = ort.InferenceSession(str(path), options, providers=[CPU_PROVIDER])
            else:
                session = open_session(ort, str(path), {"device_id": str(device)}, options)
            session.run(None, dict(feeds))
            events: list[Any] = json.loads(Path(session.end_profiling()).read_text("utf-8"))
        except Exception as error:  # the library's exception classes share no public base
            raise BackendError(f"ONNX Runtime cannot profile {path.name}: {error}") from error
    return [event["args"] for event in events if event["name"].endswith("kernel_time")]


def _operations(told: Mapping[str, Any]) -> float:
    kind = told["op_name"]
    shapes = [next(iter(entry.values())) for entry in told["input_type_shape"]]
    if kind in _PRODUCTS:
        (out,) = told["output_type_shape"][0].values()
        return float(2 * math.prod(out) * shapes[0][-1])  # [..., M, K] times [K, N]
    if kind in _ATTENTIONS:
        return _attention(shapes)
    return 0.0


def _weight_bytes(told: Mapping[str, Any]) -> int:
    """Return the bytes of the matrix of a product; 0 where both sides come from the text.

    A matrix that ONNX Runtime packed is not among the inputs that it tells of.
    """
    if told["op_name"] not in _PRODUCTS:
        return 0
    first, *others = told["input_type_shape"]
    ((kind, left),) = first.items()
    if len(left) > 3 or any(len(shape) > 2 for entry in others for shape in entry.values()):
        return 0
    (out,) = told["output_type_shape"][0].values()
    size = 1 if "Integer" in told["op_name"] else _BYTES.get(kind, 4)
    return int(left[-1]) * int(out[-1]) * size


def _attention(shapes: Sequence[Shape]) -> float:
    """Return the operations of queries times keys, and of weights times values."""
    queries, keys = shapes[0], shapes[1]
    if len(queries) == 4:  # [batch, heads, queries, size]
        batch, heads, rows, size = queries
        return 4.0 * batch * heads * size * rows * keys[2]
    if len(queries) == 3:  # [batch, queries, heads * size]
        batch, rows, width = queries
        return 4.0 * batch * width * rows * keys[1]
    rows, width = queries  # without padding, of one text: [tokens, heads * size]
    return 4.0 * width * rows * rows
