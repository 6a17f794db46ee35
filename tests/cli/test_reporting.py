"""What a compile says on standard error, and when a bar is drawn."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from poolc.cli.reporting import Reporter, progress_line, progress_of_rows
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


HALF = BulkProgress(1234, 50, 100, 2, 900, 1000, elapsed_s=20.0)


def test_lines_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_of_rows() as on_progress:
        on_progress(replace(HALF, elapsed_s=1.0))
        assert capsys.readouterr().err == ""  # a short job says nothing
        on_progress(HALF)
        on_progress(replace(HALF, elapsed_s=20.5))
    said = "1,234 rows (50 %), 45 tokens/s, padding 10.0 %, 2 failed, 20 s left\n"
    assert capsys.readouterr().err == said


def test_bar_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    with progress_of_rows() as on_progress:
        on_progress(HALF)
    assert "1,234 rows (50 %), 45 tokens/s" in capsys.readouterr().err


def test_events(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_of_rows(as_json=True) as on_progress:
        on_progress(HALF)
    event = json.loads(capsys.readouterr().err)
    assert event["event"] == "progress"
    assert (event["rows"], event["failed"], event["eta_s"]) == (1234, 2, 20.0)
    assert (event["tokens_per_s"], event["padding"]) == (45.0, 0.1)


@pytest.mark.parametrize(
    ("left_bytes", "said"), [(100, "20 s left"), (1000, "6:20 min left"), (100_000, "11:06 h left")]
)
def test_time_that_is_left(left_bytes: int, said: str) -> None:
    assert progress_line(replace(HALF, total_bytes=left_bytes)).endswith(said)


def test_time_that_nobody_knows() -> None:
    assert "left" not in progress_line(replace(HALF, total_bytes=None))
    assert "left" not in progress_line(replace(HALF, resumed_bytes=50))
