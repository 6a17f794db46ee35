"""What the device can do at most: a large matrix product, and moving memory, by ONNX Runtime.

The same library and kernels as the model's own: the share of this peak that a model reaches says
what is left to win in the graph, and not how good the library is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from poolc.errors import InvalidOption, MissingDependency
from poolc.runtime.backends.cuda import device_id
from poolc.runtime.backends.cuda_library import open_session
from poolc.runtime.backends.onnxruntime import import_onnxruntime, session_options
from poolc.runtime.cores import allowed_cores
from poolc.spec import Precision

CPU_PROVIDER = "CPUExecutionProvider"
CPU_SIZE = 1536
_GPU_SIZE = 8192
_CHAINED = 16  # products in a run on a GPU, so that casts around them do not count
_REPEATS = 7
_COPIED_BYTES = 256 << 20


def cpu_product(precision: Precision, threads: int) -> float:
    """Return operations a second of a large product on the CPU, in fp32 or int8, the fastest run.

    int8 is MatMulIntegerToFloat with constant weights, what int8 graphs consist of.
    """
    quantized = precision is Precision.INT8
    graph = _int8_graph() if quantized else _fp32_graph()
    ort = import_onnxruntime()
    session = ort.InferenceSession(
        graph.SerializeToString(), session_options(ort, threads), providers=[CPU_PROVIDER]
    )
    left = np.full((CPU_SIZE, CPU_SIZE), 3, np.uint8 if quantized else np.float32)
    return 2 * CPU_SIZE**3 / fastest(lambda: session.run(None, {"left": left}))


def cpu_bandwidth() -> float:
    """Return bytes a second that all cores read and write together, copying large arrays."""
    cores = allowed_cores()
    size = _COPIED_BYTES // cores // 4
    pairs = [(np.ones(size, np.float32), np.zeros(size, np.float32)) for _ in range(cores)]
    with ThreadPoolExecutor(cores) as threads:
        took_s = fastest(lambda: list(threads.map(lambda pair: np.copyto(pair[1], pair[0]), pairs)))
    return 2 * 4 * size * cores / took_s


def gpu_product(precision: Precision, device: str | None) -> float:
    """Return floating-point operations a second of large products on a GPU, the fastest run."""
    run = _on_gpu(_chain(precision), _GPU_SIZE, device, exact=precision is Precision.FP32)
    return _CHAINED * 2 * _GPU_SIZE**3 / fastest(run)


def gpu_bandwidth(device: str | None) -> float:
    """Return bytes a second that a GPU reads and writes, adding large arrays."""
    run = _on_gpu(_sum(), _GPU_SIZE, device, exact=True)
    return 3 * 4 * _GPU_SIZE**2 / fastest(run)  # two are read, one is written


def fastest(call: Callable[[], Any]) -> float:
    """Return the seconds of the fastest of several runs, after one that does not count."""
    call()
    seconds = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _on_gpu(model: Any, size: int, device: str | None, *, exact: bool) -> Callable[[], None]:
    """Return what runs a graph of two square inputs with everything on the device."""
    ort = import_onnxruntime()
    number = device_id(device)
    settings = {"device_id": str(number), "use_tf32": "0" if exact else "1"}
    session = open_session(ort, model.SerializeToString(), settings)
    binding = session.io_binding()
    rng = np.random.default_rng(0)
    for name in ("left", "right"):
        values = rng.standard_normal((size, size), dtype=np.float32) / np.float32(size**0.5)
        on_device = ort.OrtValue.ortvalue_from_numpy(values, "cuda", number)
        binding.bind_ortvalue_input(name, on_device)
    (output,) = session.get_outputs()
    binding.bind_output(output.name, "cuda", number)

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return run


def import_onnx() -> Any:
    """Import the package onnx, which graphs are made with. Raises MissingDependency."""
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise MissingDependency(
            'measuring a peak needs onnx, which is not installed: pip install "poolc[bench]"'
        ) from error
    return onnx


def _fp32_graph() -> Any:
    onnx = import_onnx()
    weights = np.random.default_rng(1).standard_normal((CPU_SIZE, CPU_SIZE), dtype=np.float32)
    node = onnx.helper.make_node("MatMul", ["left", "weights"], ["product"])
    return _graph([node], onnx.TensorProto.FLOAT, {"weights": weights})


def _int8_graph() -> Any:
    onnx = import_onnx()
    constants = {
        "weights": np.random.default_rng(1).integers(
            -127, 127, (CPU_SIZE, CPU_SIZE), dtype=np.int8
        ),
        "left_scale": np.float32(0.01),
        "right_scale": np.full(CPU_SIZE, 0.01, np.float32),
        "left_zero": np.uint8(128),
        "right_zero": np.zeros(CPU_SIZE, np.int8),
    }
    names = ["left", "weights", "left_scale", "right_scale", "left_zero", "right_zero"]
    node = onnx.helper.make_node("MatMulIntegerToFloat", names, ["product"], domain="com.microsoft")
    return _graph([node], onnx.TensorProto.UINT8, constants)


def _chain(precision: Precision) -> Any:
    onnx = import_onnx()
    make, kinds = onnx.helper.make_node, onnx.TensorProto
    types = {
        Precision.FP32: kinds.FLOAT,
        Precision.FP16: kinds.FLOAT16,
        Precision.BF16: kinds.BFLOAT16,
    }
    if precision not in types:
        raise InvalidOption(f"no peak is known for {precision}; known: {', '.join(types)}")
    nodes = [
        make("Cast", ["left"], ["x0"], to=types[precision]),
        make("Cast", ["right"], ["w"], to=types[precision]),
        *(make("MatMul", [f"x{i}", "w"], [f"x{i + 1}"]) for i in range(_CHAINED)),
        make("Cast", [f"x{_CHAINED}"], ["product"], to=kinds.FLOAT),
    ]
    return _graph(nodes, kinds.FLOAT, {}, ("left", "right"))


def _sum() -> Any:
    onnx = import_onnx()
    node = onnx.helper.make_node("Add", ["left", "right"], ["product"])
    return _graph([node], onnx.TensorProto.FLOAT, {}, ("left", "right"))


def _graph(
    nodes: list[Any], kind: int, constants: dict[str, Any], inputs: tuple[str, ...] = ("left",)
) -> Any:
    onnx = import_onnx()
    helper = onnx.helper
    graph = helper.make_graph(
        nodes,
        "peak",
        [helper.make_tensor_value_info(name, kind, ["rows", "columns"]) for name in inputs],
        [helper.make_tensor_value_info("product", onnx.TensorProto.FLOAT, ["rows", "width"])],
        [onnx.numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)
