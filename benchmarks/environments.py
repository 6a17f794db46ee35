"""Each system's own virtual environment, with the pins of ``table.py``.

    python -m benchmarks.environments [NAME...] [--remove]

They go to ``.bench/environments`` of the checkout, or below the folder in POOLC_BENCH. What pip
could not install is written beside as ``NAME.error`` and said in the results. torch is pinned and
comes first: set TORCH_INDEX=https://download.pytorch.org/whl/cpu where pip's own index has CUDA
builds only.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from benchmarks.table import BY_NAME, ENVIRONMENT_BY_NAME, ENVIRONMENTS, Environment

ROOT = Path(__file__).resolve().parent.parent
_PIP = ("-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--quiet")
_VERSIONS = """
import importlib.metadata as m, json, platform
names = {d.metadata["Name"]: d.version for d in m.distributions()}
print(json.dumps({"python": platform.python_version(), **dict(sorted(names.items()))}))
"""


def home() -> Path:
    """Return the folder of environments, models and results, which git does not see."""
    return Path(os.environ.get("POOLC_BENCH", ROOT / ".bench")).absolute()


def main() -> None:
    """Make the environments named, or all."""
    parser = argparse.ArgumentParser(description="Environments of the systems compared")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(ENVIRONMENT_BY_NAME))
    parser.add_argument("--remove", action="store_true", help="make them anew")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(ENVIRONMENT_BY_NAME))
    if unknown:
        parser.error(f"no such environment: {', '.join(unknown)}")
    for environment in ENVIRONMENTS:
        if not arguments.names or environment.name in arguments.names:
            make(environment, anew=arguments.remove)


def make(environment: Environment, *, anew: bool = False) -> None:
    """Create an environment unless it is there; a failure leaves its reason, not half of one."""
    folder, error = _folder(environment.name), _folder(environment.name).with_suffix(".error")
    if (folder / "complete").exists() and not anew:
        print(f"{environment.name}: there", flush=True)
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    error.unlink(missing_ok=True)
    start = time.perf_counter()
    try:
        _install(environment, folder)
    except subprocess.CalledProcessError as failure:
        error.write_text(reason(failure.stderr), encoding="utf-8")
        print(f"{environment.name}: failed: {reason(failure.stderr)}", flush=True)
        return
    (folder / "complete").write_text("", encoding="utf-8")
    print(f"{environment.name}: made in {time.perf_counter() - start:.0f} s", flush=True)


def _install(environment: Environment, folder: Path) -> None:
    _run([sys.executable, "-m", "venv", str(folder)])
    python = str(folder / "bin" / "python")
    index = os.environ.get("TORCH_INDEX")
    for step in environment.steps:
        extra = ["--extra-index-url", index] if index else []
        _run([python, *_PIP, *extra, *(name.format(poolc=ROOT) for name in step)])
    if environment.without:
        _run([python, "-m", "pip", "uninstall", "--quiet", "--yes", *environment.without])
    _run([python, "-c", f"import {', '.join(environment.modules)}"])


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, cwd=home())


def reason(output: str) -> str:
    """Return the lines of an error output that say why, on one line and short."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return " ".join((errors or lines)[-3:])[-400:]


def python_of(name: str) -> str | None:
    """Return the interpreter of an environment, or this one if it can stand in; None if neither.

    In a clone without environments, what is installed beside poolc can be measured still.
    """
    python = _folder(name) / "bin" / "python"
    if (_folder(name) / "complete").exists():
        return str(python)
    here = all(_importable(module) for module in ENVIRONMENT_BY_NAME[name].modules)
    return sys.executable if here else None


def _importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that it would be in
        return False


def why_missing(name: str) -> str:
    """Say why an environment is not there."""
    error = _folder(name).with_suffix(".error")
    if error.exists():
        return f"could not be installed: {error.read_text(encoding='utf-8')}"
    return f"no environment: python -m benchmarks.environments {name}"


@cache
def versions(name: str) -> dict[str, str]:
    """Return the versions of everything installed in an environment."""
    python = python_of(name)
    if python is None:
        return {}
    done = subprocess.run([python, "-c", _VERSIONS], capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def all_versions(systems: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the versions in the environments of these systems."""
    return {name: versions(name) for name in sorted({BY_NAME[s].environment for s in systems})}


def _folder(name: str) -> Path:
    return home() / "environments" / name


if __name__ == "__main__":
    main()
