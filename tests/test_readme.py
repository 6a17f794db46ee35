"""README.md: its blocks run, its links lead somewhere, and what it lists is there.

The model of its examples is all-MiniLM-L6-v2 from the fixtures: compiled, at ``minilm``; as a
source, at ``sentence-transformers/all-MiniLM-L6-v2`` below the working folder, so that nothing is
downloaded.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MODEL = "sentence-transformers/all-MiniLM-L6-v2"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands(word: str = "") -> list[str]:
    """Return the console lines that begin with ``word``; without it, those of the plain blocks."""
    lines = [re.findall(r"^\$ (.*)$", block, re.MULTILINE) for block in blocks("console")]
    if word:
        return [line for block in lines for line in block if line.startswith(word)]
    special = ("poolc compile", "poolc serve", "curl")
    return [line for block in lines if not block[0].startswith(special) for line in block]


@pytest.fixture
def folder(minilm: Path, tmp_path: Path) -> Path:
    """Return a working folder where ``minilm`` is the artifact and ``bin/poolc`` the command."""
    (tmp_path / "minilm").symlink_to(minilm)
    return add_command(tmp_path)


def add_command(folder: Path) -> Path:
    script = folder / "bin/poolc"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m poolc "$@"\n')
    script.chmod(0o755)
    return folder


def environment(folder: Path) -> dict[str, str]:
    return os.environ | {
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
    }


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def test_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150


def test_readme_verbs_are_in_the_makefile() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"\bmake ([a-z-]+)", README)) <= set(targets)


def test_readme_links_and_map_exist() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    mapped = re.findall(r"`((?:poolc|examples|benchmarks|docs|tests)/[^` ]*)`", README)
    missing = [path for path in links + mapped if not (ROOT / path).exists()]
    assert not missing


def test_readme_names_every_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {name for name, wants in project["optional-dependencies"].items() if wants}
    table = set(re.findall(r"^\| `([a-z-]+)` \|", README, re.MULTILINE))
    assert table == extras - {"dev"}


@pytest.mark.parametrize("block", blocks("python"))
def test_readme_python(block: str, folder: Path) -> None:
    printed = run([sys.executable, "-W", "error", "-c", block], folder)
    for expected in re.findall(r"^print.*  # (.*)$", block, re.MULTILINE):
        assert expected in printed


def test_readme_command_line(folder: Path) -> None:
    assert commands()
    for line in commands():
        run(["bash", "-euc", line], folder)
    assert (folder / "vectors.npy").stat().st_size > 2 * 384 * 4


@contextmanager
def serving(command: str, folder: Path) -> Iterator[None]:
    """Run a server until the block ends; it must then stop by itself on SIGTERM."""
    with subprocess.Popen(
        ["bash", "-euc", f"exec {command}"],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        assert server.stdout is not None
        said = []
        for line in server.stdout:
            said.append(line)
            if "running on" in line:
                break
        else:
            pytest.fail("".join(said))
        try:
            yield
        finally:
            server.terminate()
            server.communicate(timeout=30)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_readme_server(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    (serve,), (curl,) = commands("poolc serve"), commands("curl")
    with serving(serve.replace("8000", port), folder):
        answer = json.loads(run(["bash", "-euc", curl.replace("8000", port)], folder))
    assert len(answer["data"][0]["embedding"]) == 384


@pytest.mark.slow
def test_readme_compile(minilm_source: Path, tmp_path: Path) -> None:
    (tmp_path / MODEL).parent.mkdir()
    (tmp_path / MODEL).symlink_to(minilm_source)
    (compile_line,) = commands("poolc compile")
    assert MODEL in compile_line
    run(["bash", "-euc", compile_line], add_command(tmp_path))
    assert (tmp_path / "minilm/manifest.json").is_file()
