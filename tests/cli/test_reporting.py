"""What a compile says on standard error, and when a bar is drawn."""

from __future__ import annotations

from typing import Any

import pytest

from poolc.cli.reporting import Reporter, progress_of_rows
from poolc.runtime.bulk import BulkProgress


def stage(name: str, seconds: float | None = None) -> dict[str, Any]:
    if seconds is None:
        return {"event": "stage", "name": name, "status": "start"}
    return {"event": "stage", "name": name, "status": "done", "seconds": seconds}


def report(capsys: pytest.CaptureFixture[str], *events: dict[str, Any]) -> str:
    reporter = Reporter()
    for event in events:
        reporter(event)
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def test_stages_with_times(capsys: pytest.CaptureFixture[str]) -> None:
    said = report(capsys, stage("load"), stage("load", 0.25), stage("export"), stage("export", 12))
    assert said == "  load            0.25 s\n  export         12.00 s\n"


def test_warning_within_a_stage(capsys: pytest.CaptureFixture[str]) -> None:
    warning = {"event": "warning", "message": "no pooling is configured"}
    said = report(capsys, stage("load"), warning, stage("load", 1))
    assert said.splitlines() == [
        "  load        ",
        "warning: no pooling is configured",
        "  load            1.00 s",
    ]


def test_download_is_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    file = {"event": "download", "file": "model.safetensors", "total": 2_000_000}
    said = report(capsys, {**file, "done": 10}, {**file, "done": 2_000_000})
    assert said == "  model.safetensors 2.0 MB\n"


def test_download_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    file = {"event": "download", "file": "model.bin", "total": 2_000_000}
    said = report(capsys, {**file, "done": 1_000_000}, {**file, "done": 2_000_000})
    assert said == "\r  model.bin     50 % 2.0 MB\n"


def test_unknown_event_is_ignored(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(capsys, {"event": "news"}) == ""


def test_no_bar_without_a_terminal() -> None:
    with progress_of_rows() as on_progress:
        assert on_progress is None


def test_bar_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with progress_of_rows() as on_progress:
        assert on_progress is not None
        on_progress(BulkProgress(1234, 50, 100))
    assert "1,234 rows" in capsys.readouterr().err
