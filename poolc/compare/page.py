"""A comparison as one HTML file: figures, plots, the texts that differ most. Loads nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

import numpy as np

from poolc.compare import svg
from poolc.compare.result import FIGURES, Answers, Comparison, Vectors
from poolc.compare.table import identity, note

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 960px; margin: 2em auto; padding: 0 1em;
  color: #1b1f24; background: #fff; }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin-top: 2em; }
table { border-collapse: collapse; } td, th { padding: .25em .8em; border-bottom: 1px solid #d8dee4;
  text-align: left; vertical-align: top; } td.number { text-align: right;
  font-variant-numeric: tabular-nums; } .note { background: #fff8e5; padding: .6em 1em; }
.bad { color: #b3261e; } .good { color: #14662c; }
svg { margin: .4em .8em .4em 0; font: 11px system-ui, sans-serif; } svg text { fill: #57606a; }
svg .title { font-size: 13px; font-weight: 600; fill: #1b1f24; }
svg .grid { stroke: #eaeef2; } svg .axis { stroke: #8c959f; fill: none; }
svg .rule { stroke: #8c959f; stroke-dasharray: 4 3; }
svg .data polyline { fill: none; stroke: #1f5fa8; stroke-width: 2; }
svg .data rect { fill: #1f5fa8; } svg .data circle { fill: #1f5fa8; fill-opacity: .55; }
"""


def page(found: Comparison, broken: Sequence[str] = ()) -> str:
    """Return the whole file; ``broken`` are thresholds that were not kept."""
    title = f"{found.sides[0].name} and {found.sides[1].name}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>"
        f"{''.join(_body(found, broken))}</body></html>\n"
    )


def _body(found: Comparison, broken: Sequence[str]) -> Iterator[str]:
    yield f"<h1>{escape(found.task.value)}: two models on {escape(found.file)}</h1>\n"
    rows = [(name, identity(side)) for name, side in zip("AB", found.sides, strict=True)]
    rows.append(("rows", f"{found.num_rows:,}"))
    if found.vectors is not None:
        rows.append(("texts", f"{found.vectors.num_texts:,} different ones"))
    yield _table((), rows)
    for line in broken:
        yield f'<p class="bad">{escape(line)}</p>\n'
    said = note(found)
    if said is not None:
        yield f'<p class="note">{escape(said)}.</p>\n'
    yield "<h2>Figures</h2>\n"
    figures = found.figures()
    told = [(name, _number(value), FIGURES[name]) for name, value in figures.items()]
    yield _table(("figure", "", "what it is"), told)
    yield f"<h2>Plots</h2>\n{''.join(_plots(found))}\n"
    if found.vectors is not None:
        yield from _worst("Lowest cosines", found.vectors.worst)
    if found.answers is not None:
        yield from _worst("Largest differences", found.answers.worst)
    yield f"<p>Texts were sampled with seed {found.seed}.</p>"


def _plots(found: Comparison) -> Iterator[str]:
    if found.vectors is not None:
        yield from _of_vectors(found.vectors)
    if found.answers is not None:
        yield from _of_answers(found.answers)
    if found.speed is not None:
        yield svg.rounds(found.speed.ratios, "Speed of B to A", "times as fast")


def _of_vectors(vectors: Vectors) -> Iterator[str]:
    distances = np.maximum(1 - vectors.distances.cosines, 0)
    yield svg.shares(distances, "Distance of the two vectors of a text", "1 - cosine, at most")
    near = vectors.neighbours
    if near is None:
        return
    shared = np.rint(near.overlaps * near.k).astype(int)
    counts = np.bincount(shared, minlength=near.k + 1).tolist()
    names = [str(i) for i in range(near.k + 1)]
    yield svg.bars(names, counts, "Nearest texts in common", f"of {near.k}")
    known = near.correlations[~np.isnan(near.correlations)]
    if len(known):
        yield svg.shares(
            np.maximum(1 - known, 0), "Order of the nearest texts", "1 - Spearman, at most"
        )


def _of_answers(answers: Answers) -> Iterator[str]:
    yield svg.shares(answers.differences, "Differences", "largest of a row, at most")
    first, second = (values.astype(np.float64) for values in answers.values)
    if answers.labels:
        best = first.argmax(axis=1)
        rows = np.arange(len(best))
        first, second = first[rows, best], second[rows, best]
        title = "Probability of A's best label"
    else:
        first, second, title = first[:, 0], second[:, 0], "Scores"
    yield svg.dots(first, second, title, ("A", "B"))


def _worst(title: str, worst: Sequence[tuple[str, float]]) -> Iterator[str]:
    yield f"<h2>{title}</h2>\n"
    yield _table(("text", ""), [(text, f"{value:.6g}") for text, value in worst])


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["<table>"]
    if heads:
        lines.append("".join(f"<th>{escape(head)}</th>" for head in heads))
    for row in rows:
        kinds = ["", ' class="number"' if heads else "", ""]
        cells = zip(kinds, row, strict=False)
        lines.append("".join(f"<td{kind}>{escape(cell)}</td>" for kind, cell in cells))
    return "<tr>".join(lines) + "</table>\n"


def _number(value: float) -> str:
    return "not defined" if math.isnan(value) else f"{value:.6g}"
