"""An environment with Ray, and programs that run in it on a cluster of their own."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.clients.environments import ROOT, installed

PROGRAMS = Path(__file__).parent / "programs"
CONSTRAINTS = ROOT / "constraints.txt"


def python() -> Path:
    """Return an interpreter with Ray, and what else runs poolc as this one has it pinned.

    An environment of its own: Ray brings pandas, which other packages here would take notice of.
    """
    project = (ROOT / "pyproject.toml").read_bytes()
    digest = hashlib.sha256(CONSTRAINTS.read_bytes() + project).hexdigest()[:12]
    return installed("ray", ("-c", str(CONSTRAINTS), f"{ROOT}[cpu,ray]"), digest)


@contextmanager
def running(program: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start a program of this folder; its cluster ends with it."""
    folder = tempfile.mkdtemp(prefix="poolc-ray-")  # sockets lie below: paths must be short
    command = [str(python()), "-P", str(PROGRAMS / f"{program}.py"), *arguments]
    settings = {
        "PYTHONPATH": str(ROOT),
        "RAY_TMPDIR": folder,
        "RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    pipe = subprocess.PIPE
    try:
        with subprocess.Popen(
            command, env={**os.environ, **settings}, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe,
            text=True,
        ) as process:  # fmt: skip
            try:
                yield process
            finally:
                process.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def output_of(program: str, *arguments: str, dies: bool = False) -> str:
    """Run a program to its end; ``dies``: it is killed by a signal on purpose."""
    with running(program, *arguments) as process:
        if dies:  # its cluster ends a little later, and holds its pipes until then
            assert process.wait(timeout=240) == -9
            return ""
        out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err[-4000:]
    return out


def said_by(program: str, *arguments: str) -> Any:
    """Run a program to its end; return what it says: JSON, on a line of its own."""
    return said_in(output_of(program, *arguments))


def said_in(out: str) -> Any:
    """Return what a program says; Ray prints other lines before and after."""
    (line,) = [line for line in out.splitlines() if line.startswith("said ")]
    return json.loads(line.removeprefix("said "))
