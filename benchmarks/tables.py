"""Markdown tables of results: one function a kind of result. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.table import BY_NAME

Row = Mapping[str, Any]


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def label(system: str) -> str:
    """Return what tables call a system."""
    return BY_NAME[system].label if system in BY_NAME else system


def throughput_table(rows: Sequence[Row]) -> str:
    """Return the table of one workload: how fast, against poolc, and how close the answers are."""
    heads = ("system", "tokens/s", "poolc fp32 is faster by", "share of peak", "difference")
    return table(heads, [_throughput(row) for row in rows])


def _throughput(row: Row) -> list[str]:
    if "not_run" in row:
        return [label(row["system"]), f"not run: {cell(row['not_run'])}", "", "", ""]
    rate = f"{row['tokens_per_second']:,.0f} ({row['low']:,.0f} to {row['high']:,.0f})"
    ratio = ""
    if "ratio" in row:
        ratio = f"{row['ratio']:.2f}x ({row['ratio_low']:.2f} to {row['ratio_high']:.2f})"
    share = "" if row["share_of_peak"] is None else f"{row['share_of_peak']:.0%}"
    return [label(row["system"]), rate, ratio, share, closeness(row["difference"])]


def closeness(difference: Row) -> str:
    """Say how close rows are to the reference's."""
    if not difference:
        return ""
    cosine = difference.get("worst_cosine")
    worst = "" if cosine is None else f", worst cosine {cosine:.5f}"
    return f"{difference['max_abs']:.1e}{worst}"


def cell(text: str) -> str:
    """Return text that stays within a cell."""
    return " ".join(text.replace("|", "\\|").split())
