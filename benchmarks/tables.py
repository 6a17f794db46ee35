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


def latency_table(rows: Sequence[Row]) -> str:
    """Return the table of lone requests."""
    heads = ("system", "text", "p50 ms", "p99 ms", "poolc fp32's p50 is shorter by")
    made = []
    for row in rows:
        if "not_run" in row:
            made.append([label(row["system"]), f"not run: {cell(row['not_run'])}", "", "", ""])
            continue
        figures = [f"{row['p50_ms']:.2f}", f"{row['p99_ms']:.2f}"]
        made.append([label(row["system"]), row["kind"], *figures, _times(row)])
    return table(heads, made)


def cold_start_table(rows: Sequence[Row]) -> str:
    """Return the table of first vectors in fresh processes."""
    heads = ("system", "median s", "fastest", "slowest", "poolc fp32 is faster by")
    made = []
    for row in rows:
        if "not_run" in row:
            made.append([label(row["system"]), f"not run: {cell(row['not_run'])}", "", "", ""])
            continue
        figures = [f"{row[key]:.2f}" for key in ("median_s", "low_s", "high_s")]
        made.append([label(row["system"]), *figures, _times(row)])
    return table(heads, made)


def _times(row: Row) -> str:
    if "ratio" not in row:
        return ""
    low = f" ({row['ratio_low']:.2f} to {row['ratio_high']:.2f})" if "ratio_low" in row else ""
    return f"{row['ratio']:.2f}x{low}"


def quality_table(found: Row) -> str:
    """Return the table of task figures: a row a task, a column an artifact."""
    figures = found["figures"]
    tasks = list(next(iter(figures.values())))
    rows = [[task, *(f"{figures[name][task]:.2f}" for name in figures)] for task in tasks]
    return table(("Spearman x 100, or accuracy in percent", *map(label, figures)), rows)


def profile_table(rows: Sequence[Row]) -> str:
    """Return where the time of micro-batches goes: a row an operator, a column a micro-batch."""
    operators = dict.fromkeys(op for row in rows for op in row["shares"])
    heads = [
        f"{label(row['system'])}, {row['texts']} x {row['tokens']}: {row['ms']:.1f} ms"
        for row in rows
    ]
    lines = [[op, *(_percent(row["shares"].get(op)) for row in rows)] for op in operators]
    others = [f"{max(0.0, 1 - sum(row['shares'].values())):.0%}" for row in rows]
    return table(("operator", *heads), [*lines, ["others", *others]])


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"


def resident_table(rows: Sequence[Row]) -> str:
    """Return the table of resident memory."""
    heads = ("system", "MB after loading", "MB after requests", "requests")
    made = []
    for row in rows:
        if "not_run" in row:
            made.append([label(row["system"]), f"not run: {cell(row['not_run'])}", "", ""])
            continue
        figures = [f"{row[key] / 1e6:,.0f}" for key in ("loaded_bytes", "after_bytes")]
        made.append([label(row["system"]), *figures, f"{row['requests']:,}"])
    return table(heads, made)


def size_table(rows: Sequence[Row]) -> str:
    """Return the table of installed sizes."""
    heads = ("system", "MB of packages", "packages", "MB of the model")
    made = []
    for row in rows:
        if "not_run" in row:
            made.append([label(row["system"]), f"not run: {cell(row['not_run'])}", "", ""])
            continue
        figures = [f"{row[key] / 1e6:,.0f}" for key in ("package_bytes", "model_bytes")]
        made.append([label(row["system"]), figures[0], str(row["packages"]), figures[1]])
    return table(heads, made)


def sweep_table(found: Row) -> str:
    """Return the table of costs: a row a point, a column a system."""
    systems = [s for s in found["systems"] if s not in found["not_run"]]
    heads = ("against", "value", *map(label, systems))
    rows = []
    for row in found["rows"]:
        costs = row["core_seconds"]
        rows.append([row["axis"], f"{row['value']:,}", *(_cost(costs, s, found) for s in systems)])
    return table(heads, rows)


def _cost(costs: Mapping[str, float], system: str, found: Row) -> str:
    if system not in costs:
        return ""
    dollars = costs[system] / 3600 * found["price"]
    return f"{costs[system]:,.0f} s ({100 * dollars:.2f} ct)"
