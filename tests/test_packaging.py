"""What is shipped: the files of the wheel, and how it works in an environment of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Sequence
from email.message import Message
from email.parser import Parser
from pathlib import Path

import numpy as np
import pytest

import poolc

ROOT = Path(__file__).resolve().parent.parent
TEXTS = ["A sentence.", "Another one, which is a little longer than the first.", "Été à Zürich"]

# What a fresh environment runs: it knows only the artifact's path and the texts.
EMBED = """
import json, sys
import poolc
engine = poolc.load(sys.argv[1])
print(json.dumps(engine.embed(json.loads(sys.argv[2])).tolist()))
"""
INSTALLED = """
from importlib.metadata import distributions
print(*sorted(d.metadata["Name"].lower() for d in distributions()))
"""
SERVE = """
import pkgutil, sys
import poolc.runtime, poolc.serve
for package in (poolc.runtime, poolc.serve):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("tensorrt"):
            __import__(module.name)
print("torch" in sys.modules)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(folder)]
    done = subprocess.run([*build, str(ROOT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("poolc-*.whl")
    return path


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        shipped = set(archive.namelist())
    about = f"poolc-{poolc.__version__}.dist-info"
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "poolc").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    extra = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}
    assert shipped == package | {f"{about}/{name}" for name in extra}
    assert {"poolc/py.typed", "poolc/compiler/__main__.py", "poolc/cli/main.py"} <= shipped


def test_wheel_metadata(metadata: Message) -> None:
    assert metadata["Version"] == poolc.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Description-Content-Type"] == "text/markdown"


def test_wheel_runtime_needs_no_framework(metadata: Message) -> None:
    wants = metadata.get_all("Requires-Dist") or []
    runtime = [want for want in wants if "extra ==" not in want or "extra == 'cpu'" in want]
    names = {match.group().lower() for want in runtime if (match := re.match(r"[\w.-]+", want))}
    assert "onnxruntime" in names
    assert not names & {"torch", "transformers", "sentence-transformers", "onnx", "onnxruntime-gpu"}


def test_wheel_cpu_and_gpu_exclude_each_other(metadata: Message) -> None:
    wants = [want for want in metadata.get_all("Requires-Dist") or [] if "onnxruntime" in want]
    assert {
        re.sub(r"[>=<\[].*", "", want): want.split("extra == ")[1].strip("'\"") for want in wants
    } == {
        "onnxruntime": "cpu",
        "onnxruntime-gpu": "gpu",
    }


def environment(folder: Path, requirements: Sequence[str], constraints: Sequence[str]) -> Path:
    """Make a virtual environment with ``requirements`` in it; return its Python."""
    pins = folder / "constraints.txt"
    pins.write_text("\n".join(constraints))
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    python = folder / "venv/bin/python"
    options = ("--quiet", "--disable-pip-version-check", "--no-input", "--constraint", str(pins))
    install = [str(python), "-m", "pip", "install", *options, *requirements]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return python


def pins() -> list[str]:
    return (ROOT / "constraints.txt").read_text().splitlines()


def answer(python: Path, code: str, *arguments: str) -> str:
    """Run ``code`` in another environment, warnings as errors, without a sight of this checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [str(python), "-I", "-W", "error", "-c", code, *arguments]
    done = subprocess.run(command, env=kept, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def embedded_by(python: Path, artifact: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    vectors = json.loads(answer(python, EMBED, str(artifact), json.dumps(TEXTS)))
    return np.array(vectors, np.float32)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_fresh_environment_without_torch(
    wheel: Path, tiny_embedder: Path, minilm: Path, tmp_path: Path
) -> None:
    python = environment(tmp_path, [f"{wheel}[cpu,serve]"], pins())
    installed = answer(python, INSTALLED).split()
    assert "onnxruntime" in installed
    assert not {"torch", "transformers", "sentence-transformers", "onnx"} & set(installed)
    assert answer(python, SERVE) == "False"
    command = [str(python.parent / "poolc"), "--version"]
    version = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert version.strip() == f"poolc {poolc.__version__}"
    for artifact in (tiny_embedder, minilm):
        expected = poolc.load(artifact).embed(TEXTS)
        np.testing.assert_allclose(embedded_by(python, artifact), expected, atol=1e-6, rtol=0)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_oldest_onnxruntime_gives_the_same_vectors(
    wheel: Path, tiny_embedder: Path, minilm: Path, tmp_path: Path
) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (wanted,) = project["optional-dependencies"]["cpu"]
    oldest = wanted.removeprefix("onnxruntime>=")
    others = [pin for pin in pins() if not pin.startswith("onnxruntime==")]
    python = environment(tmp_path, [f"{wheel}[cpu]", f"onnxruntime=={oldest}.*"], others)
    version = answer(python, "import onnxruntime; print(onnxruntime.__version__)")
    assert version.startswith(f"{oldest}.")
    for artifact in (tiny_embedder, minilm):
        expected = poolc.load(artifact).embed(TEXTS)
        np.testing.assert_allclose(embedded_by(python, artifact), expected, atol=1e-5, rtol=0)
