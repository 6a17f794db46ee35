"""Jobs of several parts, and processes that run one and die when they are told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from poolc.runtime.bulk import BulkJob, BulkResult, Columns, Settings, run
from poolc.runtime.engine import Engine
from poolc.runtime.request import Params
from poolc.spec import Task

ROOT = Path(__file__).resolve().parents[3]
WORDS = ("the", "quick", "brown", "fox", "a", "river", "runs", "bread", "needs", "flour", "water")

Embed = Callable[..., BulkResult]


def texts(count: int) -> list[str]:
    """Return texts of mixed length."""
    return [" ".join(WORDS[(i + j) % len(WORDS)] for j in range(1 + i % 9)) for i in range(count)]


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    """Twenty-three rows of JSON with ids, two of which cannot be processed."""
    path = tmp_path / "in.jsonl"
    rows: list[Mapping[str, Any]] = [
        {"id": f"r{i}", "text": text, "year": 1990 + i} for i, text in enumerate(texts(23))
    ]
    rows[7] = {"id": "r7", "text": "", "year": 1997}
    rows[12] = {"id": "r12", "text": "bread " * 200, "year": 2002}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def embed(embedder: Engine) -> Embed:
    """Embed files with parts of five rows."""

    def start(
        inputs: Path | str | list[str],
        output: Path | str,
        *,
        columns: Columns | None = None,
        params: Params | None = None,
        **settings: Any,
    ) -> BulkResult:
        given = tuple(inputs) if isinstance(inputs, list) else (inputs,)
        job = BulkJob(
            Task.EMBED,
            given,
            str(output),
            columns or Columns(),
            params or Params(),
            Settings(**{"part_rows": 5, **settings}),
        )
        return run(embedder, job)

    return start


# What a child runs: a job whose process ends at its n-th call of the operating system that makes
# something durable (0: never). It says how many there were.
MORTAL = """
import os, signal, sys
import poolc
from poolc import bulk

artifact, path, output, kill_at, append = sys.argv[1:]
calls = 0

def mortal(function):
    def call(*arguments, **options):
        global calls
        calls += 1
        if calls == int(kill_at):
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return call

engine = poolc.load(artifact)
for name in ("write", "fsync", "replace", "link", "ftruncate", "unlink", "rmdir"):
    setattr(os, name, mortal(getattr(os, name)))
keep = () if output.endswith(".npy") else "year"
bulk.embed(engine, path, output, part_rows=5, keep=keep, append=append == "append")
print(calls)
"""


@pytest.fixture
def mortal(tiny_embedder: Path) -> Callable[..., int | None]:
    """Run a job that dies at a call; return how many there were, None where it died."""

    def start(path: Path, output: Path | str, kill_at: int, *, append: bool = False) -> int | None:
        told = (str(tiny_embedder), str(path), str(output), str(kill_at))
        done = subprocess.run(
            [sys.executable, "-c", MORTAL, *told, "append" if append else "new"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == -9:
            return None
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    return start


def content(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
