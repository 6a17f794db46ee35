"""The simulation of a large ledger, with few parts."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import ledger


def test_parts_survive_kills_and_cuts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "_OPENS", 1)
    monkeypatch.setattr(ledger, "_CUTS", 1)
    found = ledger.measure(tmp_path, 200, 1)
    assert (found["opened_parts"], found["lost_parts"]) == (200, 0)
    assert found["kills"][0]["resumed"] > 0
    assert [cut["whole_lines"] for cut in found["cuts"]] == [199]
    assert found["bytes_a_part"] > 300
