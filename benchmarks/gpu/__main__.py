"""Check and measure the GPU targets on the GPU at hand, in under nine minutes.

    python -m benchmarks.gpu [--data DIR] [--output FILE] [--smoke] [--models A,B] [--families A,B]
                             [--targets cuda,tensorrt] [--stages families,speed,operations]
                             [--seconds N] [--keep DIR]

For each target, first one model is compiled, through the gate on the device: where that fails,
nothing else of the target runs. Then the families, in every precision, beside the models; then
speed, alone on the machine; then, for cuda, what a server meets. TensorRT follows where it is
installed, and has half of the time then.
Every figure is printed as it is made, and so is what time does not reach. A table and one line of
JSON end it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.gpu.compiling import CUDA, TENSORRT
from benchmarks.gpu.shapes import SHAPES, USUAL
from benchmarks.gpu.stages import STAGES, Run, run_target
from benchmarks.gpu.table import summary

_STARTED = time.monotonic()
_MODULES = {CUDA: "onnxruntime", TENSORRT: "tensorrt"}
_SECONDS = 470.0  # what was begun before may take a minute


def say(line: str) -> None:
    """Print a figure as it is made."""
    print(f"[{time.monotonic() - _STARTED:6.1f}] {line}", flush=True)


def main() -> int:
    """Run every stage and return the exit code."""
    asked = _arguments()
    multiprocessing.set_start_method("spawn")
    found: dict[str, Any] = {"machine": _machine()}
    say(json.dumps(found["machine"]))
    failed = False
    kept = TemporaryDirectory() if asked.keep is None else nullcontext(str(asked.keep))
    with kept as root:
        Path(root).mkdir(parents=True, exist_ok=True)
        run = Run(
            root=Path(root),
            data=asked.data,
            models=tuple(asked.models.split(",")),
            families=tuple(asked.families.split(",")) if asked.families else _families(),
            until_s=_STARTED,
            found=found,
            say=say,
            smoke=asked.smoke,
            stages=tuple(asked.stages.split(",")),
        )
        targets = list(_present(asked.targets.split(",")))
        for place, target in enumerate(targets, 1):
            until_s = _STARTED + asked.seconds * place / len(targets)
            try:
                failed = run_target(replace(run, until_s=until_s), target) or failed
            except Exception as error:  # what was found until then is worth its time
                failed = True
                found.setdefault("failed", {})[target] = f"{type(error).__name__}: {error}"
                say(f"{target}: FAILED {found['failed'][target]}")
            _write(found, asked.output)
    print("\n" + summary(found), flush=True)
    print("\n" + json.dumps(found), flush=True)
    return int(failed)


def _present(targets: Sequence[str]) -> Iterator[str]:
    """Yield the targets whose library is installed; say of the others that it is not."""
    for target in targets:
        if importlib.util.find_spec(_MODULES[target]) is None:
            say(f"{target}: {_MODULES[target]} is not installed, nothing of it is tried")
        else:
            yield target


def _write(found: dict[str, Any], output: Path | None) -> None:
    if output is not None:
        output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _families() -> tuple[str, ...]:
    from tests.matrix.families import FAMILIES

    return tuple(FAMILIES)


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
    parser.add_argument("--output", type=Path, help="JSON file to write, after every target too")
    parser.add_argument("--models", default=",".join(USUAL), help=", ".join(SHAPES))
    parser.add_argument("--families", default="", help="of tests/matrix; all by default")
    parser.add_argument("--targets", default=",".join(_MODULES))
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--seconds", type=float, default=_SECONDS, help="nothing is begun after")
    parser.add_argument("--keep", type=Path, help="folder where models stay for another run")
    parser.add_argument("--smoke", action="store_true", help="only the first model of each target")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
