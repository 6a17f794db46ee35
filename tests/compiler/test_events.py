"""What a compile says while it works."""

from __future__ import annotations

import pytest

from poolc.compiler.events import Event, Progress


def test_stage_is_announced_and_timed() -> None:
    events: list[Event] = []
    progress = Progress(events.append)
    with progress.stage("export"):
        assert events == [{"event": "stage", "name": "export", "status": "start"}]
    assert events[1] == {
        "event": "stage",
        "name": "export",
        "status": "done",
        "seconds": progress.seconds["export"],
    }


def test_stage_that_fails_is_not_done() -> None:
    events: list[Event] = []
    progress = Progress(events.append)
    with pytest.raises(ValueError, match="no"), progress.stage("export"):
        raise ValueError("no")
    assert [event["status"] for event in events] == ["start"]
    assert progress.seconds == {}


def test_warnings_are_told_and_kept() -> None:
    events: list[Event] = []
    progress = Progress(events.append)
    progress.warn("careful")
    progress.downloaded("model.safetensors", 3, 9)
    assert progress.warnings == ["careful"]
    assert events == [
        {"event": "warning", "message": "careful"},
        {"event": "download", "file": "model.safetensors", "done": 3, "total": 9},
    ]
