"""What a GPU can do at most, by TensorRT: large matrix products in one engine, and moving memory.

As ``peaks.py`` is for ONNX Runtime: the library that runs the model also runs the peak. The
matrices of the engine are made on the device or are its weights, and its answer is one number, so
that nothing but the products takes time.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np

from poolc.bench.peaks import fastest, import_onnx
from poolc.errors import BackendError, InvalidOption
from poolc.runtime.backends.cuda import device_id
from poolc.runtime.backends.cuda_device import DeviceMemory, call, import_cudart
from poolc.runtime.backends.tensorrt_lane import Lane, Opened, Tensor
from poolc.runtime.backends.tensorrt_library import import_tensorrt, messages
from poolc.runtime.profiles import Placement
from poolc.spec import Precision, Target

_SIZE = 8192  # rows and columns of every matrix
_CHAINED = 16
_COPIED_BYTES = 1 << 30
_COPIES = 8
_LARGEST_E4M3 = 448.0
_INPUT, _OUTPUT = "seed", "answer"
_PLACE = Placement(0, 1, 1, recorded=False)  # of its only profile, one number


def product(target: Target, precision: Precision, device: str | None) -> float:
    """Return floating-point operations a second of large products, the fastest run.

    In fp8 the products are between QuantizeLinear and DequantizeLinear, as in the model's engine.
    Raises MissingDependency without a library or a GPU, InvalidOption for a precision that is no
    engine's, BackendError with what the library said.
    """
    graph = products(precision, _SIZE)
    trt, cudart = import_tensorrt(target), import_cudart()
    call(cudart, "cudaSetDevice", device_id(device))
    said = messages(trt)
    engine = _engine(trt, said, graph.SerializeToString(), exact=precision is Precision.FP32)
    tensors = tuple(
        Tensor(name, np.dtype(np.float32), ("batch", "seq"), name == _INPUT)
        for name in (_INPUT, _OUTPUT)
    )
    lane = Lane(Opened(trt, cudart, engine, tensors, lambda: " ".join(said.errors)))
    seed = {_INPUT: np.ones((1, 1), np.float32)}
    try:
        seconds = fastest(lambda: lane.run(seed, _PLACE, 1))
    finally:
        lane.close()
    return _CHAINED * 2 * _SIZE**3 / seconds


def bandwidth(device: str | None) -> float:
    """Return bytes a second that a GPU reads and writes, copying within its memory."""
    cudart = import_cudart()
    call(cudart, "cudaSetDevice", device_id(device))
    source, to = (DeviceMemory(cudart, _COPIED_BYTES) for _ in range(2))
    stream = call(cudart, "cudaStreamCreateWithFlags", cudart.cudaStreamNonBlocking)
    kind = cudart.cudaMemcpyKind.cudaMemcpyDeviceToDevice

    def copy() -> None:
        for _ in range(_COPIES):
            call(cudart, "cudaMemcpyAsync", to.address, source.address, _COPIED_BYTES, kind, stream)
        call(cudart, "cudaStreamSynchronize", stream)

    try:
        return 2 * _COPIES * _COPIED_BYTES / fastest(copy)
    finally:
        call(cudart, "cudaStreamDestroy", stream)
        source.free()
        to.free()


def products(precision: Precision, size: int) -> Any:
    """Return a graph of chained [size, size] products whose input and output are one number."""
    onnx = import_onnx()
    if precision not in _types(onnx):
        known = ", ".join(_types(onnx))
        raise InvalidOption(f"no peak is known for {precision}; known: {known}")
    nodes, constants = _start(onnx, size, _types(onnx)[precision])
    step = _quantized if precision is Precision.FP8 else _plain
    step(onnx, nodes, constants, _weights(size))
    make, kinds = onnx.helper.make_node, onnx.TensorProto
    nodes += [
        make("Cast", [f"x{_CHAINED}"], ["last"], to=kinds.FLOAT),
        make("ReduceMax", ["last"], [_OUTPUT], keepdims=1),
    ]
    info = onnx.helper.make_tensor_value_info
    initializers = [onnx.numpy_helper.from_array(a, name) for name, a in constants.items()]
    graph = onnx.helper.make_graph(
        nodes,
        "peak",
        [info(_INPUT, kinds.FLOAT, ["batch", "seq"])],
        [info(_OUTPUT, kinds.FLOAT, ["batch", "seq"])],
        initializers,
    )
    return onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 23)], ir_version=10
    )


def _types(onnx: Any) -> dict[Precision, int]:
    kinds = onnx.TensorProto
    return {
        Precision.FP32: kinds.FLOAT,
        Precision.FP16: kinds.FLOAT16,
        Precision.BF16: kinds.BFLOAT16,
        Precision.FP8: kinds.FLOAT16,
    }


def _start(onnx: Any, size: int, kind: int) -> tuple[list[Any], dict[str, Any]]:
    """Make x0 on the device: numbers in [-1, 1] that differ, since zeros would heat no GPU."""
    make = onnx.helper.make_node
    rows = 0.37 * np.arange(size, dtype=np.float32)[:, None]
    columns = 1.7 * np.arange(size, dtype=np.float32)[None]
    nodes = [
        make("Mul", [_INPUT, "rows"], ["phases"]),
        make("Add", ["phases", "columns"], ["angles"]),
        make("Cos", ["angles"], ["waves"]),
        make("Cast", ["waves"], ["x0"], to=kind),
    ]
    constants = {
        "rows": np.asarray(rows, np.float32),
        "columns": np.asarray(columns, np.float32),
    }
    return nodes, constants


def _weights(size: int) -> Any:
    """Return a matrix whose products neither grow nor vanish."""
    values = np.random.default_rng(0).standard_normal((size, size), dtype=np.float32)
    return values / np.float32(size**0.5)


def _plain(onnx: Any, nodes: list[Any], constants: dict[str, Any], weights: Any) -> None:
    kind = next(a.i for node in nodes if node.output[0] == "x0" for a in node.attribute)
    constants["w"] = weights.astype(onnx.helper.tensor_dtype_to_np_dtype(kind))
    for i in range(_CHAINED):
        nodes.append(onnx.helper.make_node("MatMul", [f"x{i}", "w"], [f"x{i + 1}"]))


def _quantized(onnx: Any, nodes: list[Any], constants: dict[str, Any], weights: Any) -> None:
    make = onnx.helper.make_node
    scale = float(np.abs(weights).max()) / _LARGEST_E4M3
    constants |= {
        "w": (weights / np.float32(scale)).astype(ml_dtypes.float8_e4m3fn),
        "w_scale": np.asarray(scale, np.float16),
        "x_scale": np.asarray(8 / _LARGEST_E4M3, np.float16),
        "zero": np.zeros((), ml_dtypes.float8_e4m3fn),
    }
    nodes.append(make("DequantizeLinear", ["w", "w_scale"], ["w_real"]))
    for i in range(_CHAINED):
        nodes += [
            make("QuantizeLinear", [f"x{i}", "x_scale", "zero"], [f"q{i}"]),
            make("DequantizeLinear", [f"q{i}", "x_scale"], [f"d{i}"]),
            make("MatMul", [f"d{i}", "w_real"], [f"x{i + 1}"]),
        ]


def _engine(trt: ModuleType, said: Any, graph: bytes, *, exact: bool) -> Any:
    """Build and load an engine for the GPU at hand."""
    builder = trt.Builder(said)
    network = builder.create_network(0)
    if not trt.OnnxParser(network, said).parse(graph):
        raise BackendError(f"the peak cannot be read: {' '.join(said.errors)}")
    config = builder.create_builder_config()
    if exact:
        config.clear_flag(trt.BuilderFlag.TF32)
    if hasattr(trt, "ComputeCapability"):  # TensorRT-RTX would compile for all that it knows
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.CURRENT, 0)
    profile = builder.create_optimization_profile()
    profile.set_shape(_INPUT, (1, 1), (1, 1), (1, 1))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    engine = None if plan is None else trt.Runtime(said).deserialize_cuda_engine(plan)
    if engine is None:
        raise BackendError(f"the peak cannot be built: {' '.join(said.errors)}")
    return engine
