"""Plots of the results in a folder, as SVG beside them. Runs in the environment ``report``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from matplotlib import pyplot

from benchmarks.results import ANCHOR, throughput_rows
from benchmarks.table import BY_NAME

OURS, INT8, THEIRS = "#1f5fa8", "#6aa5de", "#9a9a9a"


def main() -> None:
    """Draw every file of results."""
    folder = Path(sys.argv[1])
    pyplot.rcParams["svg.hashsalt"] = "poolc"  # the same results give the same file
    for file in sorted(folder.glob("*.json")):
        result = json.loads(file.read_text(encoding="utf-8"))
        if "throughput" in result:
            _save(throughput(result), folder / f"{file.stem}-throughput.svg")
        if "sweep" in result:
            _save(cost(result["sweep"]), folder / f"{file.stem}-cost.svg")
        if "samples" in result:
            _save(bulk(result["samples"]), folder / f"{file.stem}-over-time.svg")


def throughput(result: dict[str, Any]) -> Any:
    """Draw tokens a second of every system, a panel a workload."""
    workloads = result["throughput"]
    figure, panels = pyplot.subplots(
        1, len(workloads), figsize=(3.2 * len(workloads) + 2.5, 4.2), squeeze=False, sharey=True
    )
    for panel, (name, groups) in zip(panels[0], workloads.items(), strict=True):
        rows = {r["system"]: r for g in groups.values() for r in throughput_rows(g)}
        ran = [s for s in reversed(BY_NAME) if "tokens_per_second" in rows.get(s, {})]
        rates = [rows[s]["tokens_per_second"] for s in ran]
        panel.barh([BY_NAME[s].label for s in ran], rates, color=[_color(s) for s in ran])
        panel.set_title(name)
        panel.set_xlabel("tokens a second")
        panel.spines[["top", "right"]].set_visible(False)
    return figure


def cost(sweep: dict[str, Any]) -> Any:
    """Draw the cost per million tokens, a panel an axis."""
    axes = list(dict.fromkeys(row["axis"] for row in sweep["rows"]))
    figure, panels = pyplot.subplots(1, len(axes), figsize=(4 * len(axes), 3.8), squeeze=False)
    for panel, axis in zip(panels[0], axes, strict=True):
        rows = sorted((r for r in sweep["rows"] if r["axis"] == axis), key=lambda r: r["value"])
        for system in (s for s in sweep["systems"] if s not in sweep["not_run"]):
            values = [(r["value"], r["core_seconds"][system]) for r in rows]
            width = 2.4 if system.startswith(ANCHOR) else 1.2
            panel.plot(
                *zip(*values, strict=True), "o-", ms=3, lw=width, label=BY_NAME[system].label
            )
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        panel.set_title(axis)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_ylabel("core-seconds per million tokens")
    panels[0][-1].legend(fontsize=7, frameon=False)
    return figure


def bulk(samples: list[dict[str, float]], around: int = 10) -> Any:
    """Draw the rows a minute of a bulk job, over so many samples each, and its memory."""
    figure, (upper, lower) = pyplot.subplots(2, 1, sharex=True, figsize=(7, 5))
    pairs = list(zip(samples[:-around], samples[around:], strict=True))
    rates = [60 * (b["rows"] - a["rows"]) / (b["at_s"] - a["at_s"]) for a, b in pairs]
    upper.plot([b["at_s"] / 60 for _, b in pairs], rates, color=OURS)
    upper.set_ylabel("rows a minute")
    at = [sample["at_s"] / 60 for sample in samples]
    lower.plot(at, [sample["memory_bytes"] / 1e6 for sample in samples], color=OURS)
    lower.set_ylabel("memory, MB")
    lower.set_xlabel("minutes")
    for panel in (upper, lower):
        panel.set_ylim(bottom=0)
        panel.spines[["top", "right"]].set_visible(False)
    return figure


def _color(system: str) -> str:
    if not system.startswith(ANCHOR):
        return THEIRS
    return INT8 if BY_NAME[system].int8 else OURS


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    main()
