"""Running the command line in this process, and looking at what it said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from poolc.cli.main import main


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended."""

    code: object
    out: str
    err: str


Cli = Callable[..., Ran]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run ``poolc`` with arguments."""
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments: str | Path) -> Ran:
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Ran(stopped.value.code, captured.out, captured.err)

    return run


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    """Three short texts."""
    path = tmp_path / "in.txt"
    path.write_text("the quick brown fox\na river runs\nbread needs flour\n")
    return path
