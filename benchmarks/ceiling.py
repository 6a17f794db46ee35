"""What the machine can do: a large product in fp32 and in int8, on one thread and on all cores.

    python -m benchmarks.ceiling [--json OUT]

fp32: the faster of NumPy's matmul and ONNX Runtime's MatMul; int8: ONNX Runtime's
MatMulIntegerToFloat with prepacked weights, which is what its int8 graphs spend their time in.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.options import parser, write
from poolc.bench.peaks import CPU_SIZE as SIZE
from poolc.bench.peaks import cpu_product, fastest
from poolc.spec import Precision


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
        of_numpy = 2 * SIZE**3 / fastest(_numpy(threads))
        found[f"fp32_{name}"] = max(of_numpy, cpu_product(Precision.FP32, threads))
        found[f"int8_{name}"] = cpu_product(Precision.INT8, threads)
    return found


def _numpy(threads: int) -> Callable[[], Any]:
    rng = np.random.default_rng(0)
    left, right = (rng.standard_normal((SIZE, SIZE), dtype=np.float32) for _ in range(2))

    def call() -> Any:
        with threadpool_limits(threads):
            return left @ right

    return call


if __name__ == "__main__":
    main()
