"""Check and measure the cuda target on the GPU at hand, in under nine minutes.

    python -m benchmarks.gpu [--data DIR] [--output FILE] [--smoke] [--models A,B] [--families A,B]

First one model is compiled, through the gate on the device: where that fails, nothing else runs.
Then the families, in every precision, beside the models; then speed, alone on the machine.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import time
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.gpu import speed
from benchmarks.gpu.compiling import PRECISIONS, compile_family, compile_shape
from benchmarks.gpu.shapes import SHAPES, build, load_texts
from benchmarks.gpu.table import summary

_STARTED = time.monotonic()


def say(line: str) -> None:
    """Print a figure as it is made."""
    print(f"[{time.monotonic() - _STARTED:6.1f}] {line}", flush=True)


def main() -> int:
    """Run every stage and return the exit code."""
    asked = _arguments()
    multiprocessing.set_start_method("spawn")
    found: dict[str, Any] = {"machine": _machine()}
    say(json.dumps(found["machine"]))
    with TemporaryDirectory() as temporary:
        failed = _run(Path(temporary), asked, found)
    print("\n" + summary(found), flush=True)
    return failed


def _run(root: Path, asked: argparse.Namespace, found: dict[str, Any]) -> int:
    names = asked.models.split(",")
    data = asked.data
    smoke = build("minilm", root, data)
    found["models"] = [compile_shape(str(smoke), "fp16", str(root / "minilm-fp16"))]
    say(_line(found["models"][0]))
    if "failed" in found["models"][0] or found["models"][0]["scope"] != "artifact":
        say("the smoke test failed: nothing else is tried")
        return 1
    found["stress"] = speed.stress(root / "minilm-fp16", say)
    if found["stress"]["failures"] or asked.smoke:
        return int(bool(found["stress"]["failures"]))
    found["families"] = []
    with ProcessPoolExecutor(max(2, min(14, (os.cpu_count() or 2) - 2))) as pool:
        built = {pool.submit(build, name, root, data): name for name in names if name != "minilm"}
        jobs: list[Future[dict[str, Any]]] = []
        for done in as_completed(built):
            name = built[done]
            jobs += [
                pool.submit(compile_shape, str(done.result()), p, str(root / f"{name}-{p}"))
                for p in SHAPES[name].precisions
            ]
        families = asked.families.split(",") if asked.families else _families()
        jobs += [pool.submit(compile_family, f, p) for f in families for p in PRECISIONS]
        for job in as_completed(jobs):
            result = job.result()
            found["families" if "family" in result else "models"].append(result)
            say(_line(result))
    texts = load_texts(data)
    found["matrix_peak_tflops"] = {}
    found["speed"] = {}
    for name in names:
        for precision in SHAPES[name].precisions:
            peak = speed.matrix_peak(precision)
            found["matrix_peak_tflops"].setdefault(precision, []).append(peak / 1e12)
            artifact = root / f"{name}-{precision}"
            found["speed"][f"{name}-{precision}"] = speed.measure(
                SHAPES[name], root / name, artifact, precision, texts, peak, say
            )
            _write(found, asked.output)  # what is there so far: time may be up before the end
    return int(any("failed" in one for one in [*found["models"], *found["families"]]))


def _write(found: dict[str, Any], output: Path | None) -> None:
    if output is not None:
        output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _families() -> list[str]:
    from tests.matrix.families import FAMILIES

    return list(FAMILIES)


def _line(found: dict[str, Any]) -> str:
    name = f"{found.get('family') or found.get('model')} {found['precision']}"
    if "failed" in found:
        return f"{name}: FAILED {found['failed']}"
    if "absent" in found:
        return f"{name}: not in this transformers"
    cosine = found["worst_cosine"]
    return (
        f"{name}: error {found['max_relative_error']:.1e}, worst cosine {cosine:.7f}, alone and "
        f"batched {found['invariance_max_abs']:.1e} ({found['scope']}, {found['layout']})"
    )


def _machine() -> dict[str, Any]:
    import onnxruntime
    import sentence_transformers
    import torch
    import transformers

    query = "--query-gpu=name,driver_version,memory.total"
    done = subprocess.run(
        ["nvidia-smi", query, "--format=csv,noheader"], capture_output=True, text=True, check=False
    )
    return {
        "gpu": done.stdout.strip(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "sentence_transformers": sentence_transformers.__version__,
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with texts.json and tokenizer.json")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--models", default=",".join(SHAPES))
    parser.add_argument("--families", default="", help="of tests/matrix; all by default")
    parser.add_argument("--smoke", action="store_true", help="only the first model")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
