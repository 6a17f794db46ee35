"""What people are shown: the terminal's table, and a page that loads nothing."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from poolc.compare import Comparison, Settings, Threshold, compare, svg
from poolc.compare.page import page
from poolc.compare.result import FIGURES
from poolc.compare.table import table
from poolc.errors import InvalidOption


@pytest.fixture
def embedded(tiny_embedder: Path, texts: Path) -> Comparison:
    return compare(tiny_embedder, tiny_embedder, texts, Settings(seconds=0.01))


@pytest.fixture
def classified(tiny_classifier: Path, texts: Path, quick: Settings) -> Comparison:
    return compare(tiny_classifier, tiny_classifier, texts, quick)


@pytest.fixture
def scored(tiny_cross_encoder: Path, pairs: Path, quick: Settings) -> Comparison:
    return compare(tiny_cross_encoder, tiny_cross_encoder, pairs, quick)


class Seen(HTMLParser):
    """Tags and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [f"{value}" for name, value in attrs if name in ("src", "href")]


@pytest.mark.parametrize("kind", ["embedded", "classified", "scored"])
def test_page_stands_alone(kind: str, request: pytest.FixtureRequest) -> None:
    found: Comparison = request.getfixturevalue(kind)
    text = page(found)
    seen = Seen(text)
    assert not {"script", "link", "img", "iframe"} & set(seen.tags)
    assert not seen.links
    plots = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(plots) == {"embedded": 4, "classified": 2, "scored": 2}[kind]
    for plot in plots:
        assert ET.fromstring(plot).tag == "{http://www.w3.org/2000/svg}svg"
    for name, value in found.figures().items():
        assert name in text
        assert f"{value:.6g}" in text


def test_page_escapes_texts(scored: Comparison) -> None:
    answers = scored.answers
    assert answers is not None
    found = replace(scored, file="<i>&", answers=replace(answers, worst=[("<script>", 1.0)]))
    text = page(found, ["a < b"])
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert "a &lt; b" in text


@pytest.mark.parametrize("kind", ["embedded", "classified", "scored"])
def test_every_figure_is_explained(kind: str, request: pytest.FixtureRequest) -> None:
    assert set(request.getfixturevalue(kind).figures()) <= set(FIGURES)


def test_table_of_vectors(embedded: Comparison) -> None:
    shown = table(embedded)
    assert re.search(r"^cosine +mean 1\.000000, worst 1\.000000", shown, re.MULTILINE)
    assert re.search(r"^neighbours +100\.00 % of the 10 nearest", shown, re.MULTILINE)
    assert re.search(r"^speed +A [\d,]+, B [\d,]+ a second: B \d\.\d\dx of A", shown, re.MULTILINE)


def test_table_says_that_spaces_differ(embedded: Comparison) -> None:
    first, second = embedded.sides
    other = replace(embedded, sides=(first, replace(second, space_id="0" * 64)))
    assert "note" not in table(embedded)
    assert "different vector spaces" in table(other)


def test_threshold() -> None:
    least = Threshold.parse("cosine-min=0.9", at_most=False)
    most = Threshold.parse("max_abs=0.01", at_most=True)
    assert least.broken_by({"cosine_min": 0.9}) is None
    assert least.broken_by({"cosine_min": 0.89}) == "cosine_min is 0.89, less than 0.9"
    assert least.broken_by({"cosine_min": float("nan")}) is not None
    assert most.broken_by({"max_abs": 0.01}) is None
    assert most.broken_by({"max_abs": 0.02}) == "max_abs is 0.02, more than 0.01"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cosine", "allowed: a figure and a number"),
        ("=1", "allowed: a figure and a number"),
        ("cosine=high", "allowed: a figure and a number"),
        ("cosinus=1", "no figure 'cosinus'; did you mean cosine"),
    ],
)
def test_threshold_that_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        Threshold.parse(text, at_most=False)


def test_threshold_of_a_figure_that_is_not_there() -> None:
    with pytest.raises(InvalidOption, match="has no overlap; it has: cosine"):
        Threshold("overlap", 1.0).broken_by({"cosine": 1.0})


@pytest.mark.parametrize("values", [[0.0, 0.0], [1e-9, 3.0], [0.5], [0.0, 1e-7, 1e-7]])
def test_shares_of_any_values(values: list[float]) -> None:
    drawn = ET.fromstring(svg.shares(np.array(values), "a < b", "x"))
    assert drawn.get("aria-label") == "a < b"
    assert "NaN" not in ET.tostring(drawn, "unicode")


def test_ticks_are_round_and_inside() -> None:
    linear = svg.Axis(0.13, 0.87, (0, 100), log=False).ticks()
    assert np.allclose(linear, [0.2, 0.4, 0.6, 0.8])
    assert svg.Axis(1e-6, 1e-2, (0, 100), log=True).ticks() == pytest.approx(
        [1e-6, 1e-5, 1e-4, 1e-3, 1e-2]
    )
