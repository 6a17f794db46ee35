"""What an engine was built from, for counting: the same operators in fp32, on a CPU.

An engine's kernels tell of no shapes; the ONNX beside it does. ONNX Runtime's CPU provider has no
kernels in bf16, and casts around those of fp16, so that the copy that is run is in fp32.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from poolc.bench.peaks import import_onnx
from poolc.errors import ArtifactIncompatible
from poolc.runtime.engine import Engine
from poolc.spec import MAIN_SET

_PRODUCTS = ("MatMul", "Gemm")
_FILE = "model.onnx"


def onnx_of(engine: Engine) -> Path:
    """Return the file of the graph that the main engine was built from.

    Raises ArtifactIncompatible for an artifact without.
    """
    graph = engine.artifact.manifest.graphs[MAIN_SET]
    if graph.onnx is None:
        raise ArtifactIncompatible(
            f"{engine.artifact.path} carries no ONNX of its engine: compile the model again"
        )
    return engine.artifact.file(graph.onnx)


def write_in_fp32(source: Path, folder: Path) -> Path:
    """Write a graph with every fp16 and bf16 number as fp32 into ``folder``; return its file."""
    onnx = import_onnx()
    model = onnx.load(str(source))
    _widen(onnx, model.graph)
    path = folder / _FILE
    onnx.save_model(model, str(path), save_as_external_data=True, location=f"{_FILE}.data")
    return path


def weight_bytes(source: Path) -> int:
    """Return the bytes of the constant matrices of a graph's products, in their own type."""
    onnx = import_onnx()
    graph = onnx.load(str(source), load_external_data=False).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:  # a quantised matrix is read as it lies
        if node.op_type == "DequantizeLinear" and node.input[0] in constants:
            constants[node.output[0]] = constants[node.input[0]]
    read = [node.input[1] for node in graph.node if node.op_type in _PRODUCTS]
    return sum(_num_bytes(onnx, constants[name]) for name in read if name in constants)


def _num_bytes(onnx: Any, tensor: Any) -> int:
    size = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return int(math.prod(tensor.dims) * size)


def _widen(onnx: Any, graph: Any) -> None:
    kinds = onnx.TensorProto
    low = (kinds.FLOAT16, kinds.BFLOAT16)

    def wide(tensor: Any) -> Any:
        values = onnx.numpy_helper.to_array(tensor).astype(np.float32)
        return onnx.numpy_helper.from_array(values, tensor.name)

    del graph.value_info[:]
    for tensor in graph.initializer:
        if tensor.data_type in low:
            tensor.CopyFrom(wide(tensor))
    for node in graph.node:
        for one in node.attribute:
            if one.name == "to" and one.i in low:
                one.i = kinds.FLOAT
            elif one.type == onnx.AttributeProto.TENSOR and one.t.data_type in low:
                one.t.CopyFrom(wide(one.t))
            elif one.type == onnx.AttributeProto.GRAPH:
                _widen(onnx, one.g)
