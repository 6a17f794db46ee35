"""Plots as SVG text, for pages that need nothing else. Knows numbers and axes, no models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np
import numpy.typing as npt

_WIDTH, _HEIGHT = 440, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 30, 44
_MOST_POINTS = 400
_MOST_DOTS = 2000


class Axis:
    """Numbers to pixels, linear or by powers of ten."""

    def __init__(self, low: float, high: float, pixels: tuple[float, float], *, log: bool) -> None:
        self._log = log
        a, b = (math.log10(x) if log else x for x in (low, high))
        if a == b:
            a, b = a - 0.5, b + 0.5
        self._from, self._to, self._pixels = a, b, pixels

    def __call__(self, value: float) -> float:
        place = math.log10(value) if self._log else value
        start, end = self._pixels
        return start + (place - self._from) / (self._to - self._from) * (end - start)

    def ticks(self) -> list[float]:
        """Return round numbers inside."""
        if self._log:
            first, last = math.ceil(self._from - 1e-9), math.floor(self._to + 1e-9)
            every = max(1, (last - first + 4) // 5)
            return [10.0**power for power in range(first, last + 1, every)]
        raw = (self._to - self._from) / 5
        step = 10.0 ** math.floor(math.log10(raw))
        step *= next(m for m in (1, 2, 5, 10) if m * step >= raw - 1e-12)
        first = math.ceil(self._from / step - 1e-9)
        return [n * step for n in range(first, math.floor(self._to / step + 1e-9) + 1)]


def shares(values: npt.NDArray[np.float64], title: str, label: str) -> str:
    """Draw which share of the values is at most how much, by powers of ten; zeros at the left."""
    ordered = np.sort(values)
    positive = ordered[ordered > 0]
    if not len(positive):
        return _frame(title, label, "all are 0", "")
    low = 10.0 ** math.floor(math.log10(positive[0]))
    high = max(10.0 ** math.ceil(math.log10(positive[-1])), 10 * low)
    x = Axis(low, high, (_LEFT, _WIDTH - _RIGHT), log=True)
    y = Axis(0, 100, (_HEIGHT - _BOTTOM, _TOP), log=False)
    places = np.unique(np.linspace(0, len(ordered) - 1, _MOST_POINTS).astype(int))
    points = [
        (x(max(float(ordered[i]), low)), y(100 * (i + 1) / len(ordered))) for i in places.tolist()
    ]
    line = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    return _frame(title, label, "% of texts", f'<polyline points="{line}"/>', x, y)


def bars(names: Sequence[str], counts: Sequence[int], title: str, label: str) -> str:
    """Draw a bar a name."""
    y = Axis(0, max(*counts, 1), (_HEIGHT - _BOTTOM, _TOP), log=False)
    step = (_WIDTH - _LEFT - _RIGHT) / len(names)
    every = max(1, len(names) // 10)
    drawn = []
    for i, (name, count) in enumerate(zip(names, counts, strict=True)):
        left, top = _LEFT + i * step, y(count)
        drawn.append(
            f'<rect x="{left + 1:.1f}" y="{top:.1f}" width="{step - 2:.1f}" '
            f'height="{_HEIGHT - _BOTTOM - top:.1f}"><title>{escape(name)}: {count}</title></rect>'
        )
        if i % every == 0:
            drawn.append(_text(left + step / 2, _HEIGHT - _BOTTOM + 15, name, "middle"))
    return _frame(title, label, "count", "".join(drawn), None, y)


def dots(
    first: npt.NDArray[np.float64],
    second: npt.NDArray[np.float64],
    title: str,
    names: Sequence[str],
) -> str:
    """Draw a dot a row, one model against the other, and the line where they agree."""
    low = float(min(first.min(), second.min()))
    high = float(max(first.max(), second.max()))
    x = Axis(low, high, (_LEFT, _WIDTH - _RIGHT), log=False)
    y = Axis(low, high, (_HEIGHT - _BOTTOM, _TOP), log=False)
    places = np.unique(np.linspace(0, len(first) - 1, _MOST_DOTS).astype(int)).tolist()
    drawn = [
        f'<circle cx="{x(float(first[i])):.1f}" cy="{y(float(second[i])):.1f}" r="2"/>'
        for i in places
    ]
    line = _rule("rule", (x(low), y(low)), (x(high), y(high)))
    return _frame(title, names[0], names[1], line + "".join(drawn), x, y)


def rounds(values: Sequence[float], title: str, label: str) -> str:
    """Draw a dot a round, and the line where both are as fast."""
    x = Axis(1, max(len(values), 2), (_LEFT + 8, _WIDTH - _RIGHT - 8), log=False)
    y = Axis(min(0.0, *values), 1.1 * max(1.0, *values), (_HEIGHT - _BOTTOM, _TOP), log=False)
    drawn = [
        f'<circle cx="{x(i + 1):.1f}" cy="{y(value):.1f}" r="3"/>' for i, value in enumerate(values)
    ]
    line = _rule("rule", (_LEFT, y(1)), (_WIDTH - _RIGHT, y(1)))
    return _frame(title, "round", label, line + "".join(drawn), x, y)


def _frame(
    title: str, x_label: str, y_label: str, drawn: str, x: Axis | None = None, y: Axis | None = None
) -> str:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = [_text(_LEFT, 18, title, "start", "title")]
    for place, name in _places(x):
        parts.append(_rule("grid", (place, _TOP), (place, bottom)))
        parts.append(_text(place, bottom + 15, name, "middle"))
    for place, name in _places(y):
        parts.append(_rule("grid", (_LEFT, place), (right, place)))
        parts.append(_text(_LEFT - 5, place + 4, name, "end"))
    parts.append(f'<path class="axis" d="M{_LEFT},{_TOP}V{bottom}H{right}"/>')
    parts.append(_text((_LEFT + right) / 2, _HEIGHT - 8, x_label, "middle"))
    middle = (_TOP + bottom) / 2
    parts.append(
        f'<text transform="translate(14,{middle:.0f}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_label)}</text>"
    )
    box = f'viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(title)}" {box}>'
        f'{"".join(parts)}<g class="data">{drawn}</g></svg>'
    )


def _places(axis: Axis | None) -> list[tuple[float, str]]:
    return [] if axis is None else [(axis(value), f"{value:g}") for value in axis.ticks()]


def _rule(kind: str, start: tuple[float, float], end: tuple[float, float]) -> str:
    (a, b), (c, d) = start, end
    return f'<line class="{kind}" x1="{a:.1f}" y1="{b:.1f}" x2="{c:.1f}" y2="{d:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
