"""What the machine can do: a large product in fp32 and in int8, on one thread and on all cores.

    python -m benchmarks.ceiling [--json OUT]

fp32: the faster of NumPy's matmul and ONNX Runtime's MatMul; int8: ONNX Runtime's
MatMulIntegerToFloat with prepacked weights, which is what its int8 graphs spend their time in.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from threadpoolctl import threadpool_limits

from benchmarks.options import parser, write

SIZE = 1536
REPEATS = 7


def main() -> None:
    """Measure and print."""
    arguments = parser("The machine's ceiling").parse_args()
    results = measure()
    print("| product | one thread | all cores |")
    print("| --- | --- | --- |")
    for kind, unit in (("fp32", "GFLOP/s"), ("int8", "GOP/s")):
        one, all_cores = (results[f"{kind}_{threads}"] / 1e9 for threads in ("one", "all"))
        print(f"| {kind} {SIZE} x {SIZE} x {SIZE} | {one:,.0f} {unit} | {all_cores:,.0f} {unit} |")
    write({"operations_per_second": results}, arguments.json)


def measure() -> dict[str, float]:
    """Return operations a second: fp32_one, fp32_all, int8_one, int8_all, by the fastest repeat."""
    cores = len(os.sched_getaffinity(0))
    found: dict[str, float] = {}
    for name, threads in (("one", 1), ("all", cores)):
        fp32 = [_numpy(threads), _onnxruntime(_fp32_graph(), threads)]
        found[f"fp32_{name}"] = max(_fastest(call) for call in fp32)
        found[f"int8_{name}"] = _fastest(_onnxruntime(_int8_graph(), threads))
    return found


def _fastest(call: Callable[[], Any]) -> float:
    call()
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return 2 * SIZE**3 / min(seconds)


def _numpy(threads: int) -> Callable[[], Any]:
    rng = np.random.default_rng(0)
    left, right = (rng.standard_normal((SIZE, SIZE), dtype=np.float32) for _ in range(2))

    def call() -> Any:
        with threadpool_limits(threads):
            return left @ right

    return call


def _onnxruntime(model: onnx.ModelProto, threads: int) -> Callable[[], Any]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "product.onnx"
        onnx.save(model, path)
        session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    kind = np.float32 if session.get_inputs()[0].type == "tensor(float)" else np.uint8
    feeds = {"left": np.full((SIZE, SIZE), 3, kind)}
    return lambda: session.run(["product"], feeds)


def _fp32_graph() -> onnx.ModelProto:
    weights = np.random.default_rng(1).standard_normal((SIZE, SIZE), dtype=np.float32)
    node = helper.make_node("MatMul", ["left", "weights"], ["product"])
    return _graph(node, TensorProto.FLOAT, {"weights": weights})


def _int8_graph() -> onnx.ModelProto:
    rng = np.random.default_rng(1)
    constants = {
        "weights": rng.integers(-127, 127, (SIZE, SIZE), dtype=np.int8),
        "left_scale": np.float32(0.01),
        "right_scale": np.full(SIZE, 0.01, np.float32),
        "left_zero": np.uint8(128),
        "right_zero": np.zeros(SIZE, np.int8),
    }
    names = ["left", "weights", "left_scale", "right_scale", "left_zero", "right_zero"]
    node = helper.make_node("MatMulIntegerToFloat", names, ["product"], domain="com.microsoft")
    return _graph(node, TensorProto.UINT8, constants)


def _graph(node: onnx.NodeProto, kind: int, constants: dict[str, Any]) -> onnx.ModelProto:
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info("left", kind, [SIZE, SIZE])],
        [helper.make_tensor_value_info("product", TensorProto.FLOAT, [SIZE, SIZE])],
        [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


if __name__ == "__main__":
    main()
