"""Putting an output in place: whole, with its description, or not at all."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poolc.errors import InputError
from poolc.runtime.request import Params
from tests.runtime.bulk.conftest import Embed

_KILLED_AT_CALL = """
import os, signal, sys
from pathlib import Path
from poolc.runtime.bulk.publish import publish

output, kill_at = Path(sys.argv[1]), int(sys.argv[2])
calls = 0

def mortal(function):
    def call(*arguments, **options):
        global calls
        calls += 1
        if calls == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return call

os.fsync, os.replace, os.link = mortal(os.fsync), mortal(os.replace), mortal(os.link)
publish(output.with_name("draft"), output, {"rows": 3})
"""


def test_killed_while_publishing(tmp_path: Path) -> None:
    output = tmp_path / "out.npy"
    meta = output.with_name(f"{output.name}.meta.json")
    for kill_at in range(1, 20):
        output.write_text("older")
        meta.write_text("older")
        output.with_name("draft").write_text("rows")
        command = [sys.executable, "-c", _KILLED_AT_CALL, str(output), str(kill_at)]
        code = subprocess.run(command, check=False).returncode
        if code == 0:
            break
        assert code == -signal.SIGKILL
        is_older = output.read_bytes() == b"older"
        assert is_older or output.read_bytes() == b"rows"
        if meta.exists():  # then it describes these rows
            assert (meta.read_text() == "older") == is_older
    # The description flushed, the old ones put aside, the new ones in place, the folder flushed.
    assert kill_at == 7
    assert output.read_text() == "rows"


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    path = tmp_path / "in.txt"
    path.write_text("the quick brown fox\na river runs\nbread needs flour\n")
    return path


def refuse_calls(monkeypatch: pytest.MonkeyPatch, name: str, refuse: Callable[..., bool]) -> None:
    function = getattr(os, name)

    def call(source: Any, target: Any, **options: Any) -> None:
        if refuse(Path(source), Path(target)):
            raise OSError(errno.EIO, "Input/output error")
        function(source, target, **options)

    monkeypatch.setattr(os, name, call)


@pytest.mark.parametrize("target", ["out.npy", "out.npy.meta.json"])
@pytest.mark.parametrize("has_links", [True, False])
@pytest.mark.parametrize("older", [{}, {"out.npy": "rows", "out.npy.meta.json": "description"}])
def test_rename_that_fails_restores_what_was_there(
    embed: Embed,
    text_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    target: str,
    has_links: bool,
    older: dict[str, str],
) -> None:
    folder = text_file.parent
    for name, content in older.items():
        (folder / name).write_text(content)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    failed: list[Path] = []

    def refuse(source: Path, to: Path) -> bool:
        if to.name != target or failed:  # the second is the way back
            return False
        failed.append(to)
        return True

    refuse_calls(monkeypatch, "replace", refuse)
    if not has_links:
        refuse_calls(monkeypatch, "link", lambda source, to: source.exists())
    with pytest.raises(InputError, match=r"cannot write .*out.npy: Input/output error"):
        embed(text_file, folder / "out.npy")
    assert failed
    after = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert after == before
    monkeypatch.undo()
    assert embed(text_file, folder / "out.npy").num_resumed == 3


def test_publishing_over_an_older_output_leaves_nothing_else(embed: Embed, text_file: Path) -> None:
    output = text_file.with_name("out.npy")
    embed(text_file, output)
    embed(text_file, output, params=Params(dimensions=8))
    assert np.load(output).shape == (3, 8)
    assert sorted(path.name for path in text_file.parent.iterdir()) == [
        "in.txt",
        "out.npy",
        "out.npy.meta.json",
    ]
