"""The page of servers under load says what its file says."""

from __future__ import annotations

import json

from benchmarks.serve_page import DATA, NOTES, PAGE, page


def test_the_page_is_that_of_the_file() -> None:
    found = json.loads(DATA.read_text(encoding="utf-8"))
    assert PAGE.read_text(encoding="utf-8") == page(found)


def test_figures_are_in_the_page() -> None:
    found = json.loads(DATA.read_text(encoding="utf-8"))
    own = found["short"]["closed"]["poolc"]["8"]
    shown = page(found)
    assert f"{own['requests_per_s']:,.0f}/s" in shown
    assert shown.endswith(NOTES.read_text(encoding="utf-8"))
