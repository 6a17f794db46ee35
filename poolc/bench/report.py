"""What runs found: a table for people, and a plot of latencies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from poolc.bench.load import Outcome
from poolc.errors import MissingDependency

_COLUMNS = ("load", "requests/s", "texts/s", "p50 ms", "p90 ms", "p99 ms", "max ms", "answers")


def table(found: Mapping[str, Outcome]) -> str:
    """Return a row a run, by its name (``8 clients``, ``100 requests/s``)."""
    rows = [_COLUMNS, *(_row(name, outcome) for name, outcome in found.items())]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(w) if i in (0, 7) else cell.rjust(w) for i, (cell, w) in _sized(row, widths)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _sized(row: Sequence[str], widths: Sequence[int]) -> Any:
    return enumerate(zip(row, widths, strict=True))


def _row(name: str, outcome: Outcome) -> tuple[str, ...]:
    found = outcome.summary()
    latency = found["latency_ms"]
    return (
        name,
        f"{found['requests_per_s']:,.1f}",
        f"{found['texts_per_s']:,.1f}",
        *(f"{latency[key]:,.1f}" for key in ("p50", "p90", "p99", "max")),
        ", ".join(f"{count} x {status}" for status, count in found["statuses"].items()),
    )


def plot(found: Mapping[str, Outcome], path: Path) -> None:
    """Draw which share of the requests was answered within which time, a line a run.

    Raises MissingDependency without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingDependency(
            'a plot needs matplotlib, which is not installed: pip install "poolc[bench]"'
        ) from error
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, outcome in found.items():
        ordered = sorted(outcome.latencies_s)
        shares = [100 * (i + 1) / len(ordered) for i in range(len(ordered))]
        axes.step([1000 * s for s in ordered], shares, where="post", label=name)
    axes.set_xscale("log")
    axes.set_xlabel("latency, ms")
    axes.set_ylabel("% of requests")
    axes.set_ylim(0, 100)
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.savefig(path)
