"""The page ``docs/benchmarks/serve.md``, from what ``benchmarks.serve`` wrote.

    python -m benchmarks.serve_page [JSON]

A file that is named is first copied to ``docs/benchmarks/serve.json``. The page says nothing that
the file does not, but for ``serve_notes.md``.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from typing import Any

from benchmarks.environments import ROOT
from benchmarks.serve import SERVERS, WORKLOADS
from benchmarks.tables import table

FOLDER = ROOT / "docs" / "benchmarks"
DATA, PAGE, NOTES = (FOLDER / name for name in ("serve.json", "serve.md", "serve_notes.md"))
Found = Mapping[str, Any]

INTRODUCTION = """# Servers under load

Made by `python -m benchmarks.serve_page` from [serve.json](serve.json), which `python -m
benchmarks.serve --data DIR --json OUT` wrote: all servers run at once on the same two cores, rounds
alternate between them, and the load generator (`poolc bench serve`, closed loop, one text a
request) is pinned to one of the two cores and takes its share of it. all-MiniLM-L6-v2 in fp32.
Medians of the rounds.
"""
_TITLES = {"short": "Single short queries", "documents": "Single documents"}


def main() -> None:
    """Make the page."""
    if len(sys.argv) > 1:
        shutil.copyfile(sys.argv[1], DATA)
    PAGE.write_text(page(json.loads(DATA.read_text(encoding="utf-8"))), encoding="utf-8")


def page(found: Found) -> str:
    """Return the whole page."""
    parts = [INTRODUCTION]
    for name in WORKLOADS:
        if name in found:
            parts += [f"## {_TITLES[name]}\n", _closed(found[name]), _open(found[name])]
    if "overload" in found:
        parts.append(_overload(found["overload"]))
    parts.append(NOTES.read_text(encoding="utf-8"))
    return "\n".join(parts)


def _closed(found: Found) -> str:
    closed: Found = found["closed"]
    heads = ("clients", *(SERVERS[name].label for name in closed), "outside the model")
    rows = []
    for count, own in closed["poolc"].items():
        cells = [_rate(closed[name][count], own) for name in closed]
        outside = own.get("outside_model_share")
        rows.append((count, *cells, "" if outside is None else f"{100 * outside:.0f} %"))
    return table(heads, rows) + "\n"


def _rate(one: Found, own: Found) -> str:
    latency = one["latency_ms"]
    times = own["requests_per_s"] / one["requests_per_s"]
    told = "" if one is own else f", poolc {times:.1f}x"
    return f"{one['requests_per_s']:,.0f}/s, p99 {latency['p99']:,.0f} ms{told}"


def _open(found: Found) -> str:
    rows = [
        (SERVERS[name].label, *(f"{one['latency_ms'][p]:,.1f}" for p in ("p50", "p99")))
        for name, one in found["open"].items()
    ]
    told = f"At {found['offered_rate']:g} requests a second, whatever became of the others:\n\n"
    return told + table(("server", "p50 ms", "p99 ms"), rows) + "\n"


def _overload(found: Found) -> str:
    rows = []
    for name in ("before", "overloaded", "after"):
        one = found[name]
        statuses = ", ".join(f"{count:,} x {status}" for status, count in one["statuses"].items())
        offered = sum(one["statuses"].values()) / one["offered_s"]
        rows.append(
            (
                *(name, f"{offered:,.0f}", f"{one['requests_per_s']:,.0f}"),
                *(f"{one['latency_ms']['p99']:,.0f}", _late(one), statuses),
            )
        )
    heads = ("poolc", "offered/s", "answered/s", "p99 ms of those", "sent late, p99 ms", "answers")
    return f"## Five times too much\n\n{table(heads, rows)}\n\n{_memory(found)}\n"


def _memory(found: Found) -> str:
    """Tell memory before, over the second half of the flood, when the queue is full, and after."""
    before, after = (found[f"memory_{when}"] / 1e6 for when in ("before", "after"))
    flood = found["overloaded"]
    late = [size / 1e6 for at_s, size in flood.get("memory", ()) if 2 * at_s >= flood["offered_s"]]
    full = f", {min(late):.0f} to {max(late):.0f} MB in the flood's second half" if late else ""
    return f"resident memory {before:.0f} MB before{full}, {after:.0f} MB after"


def _late(one: Found) -> str:
    late_ms = one.get("sent_late_ms_p99")
    return "not told" if late_ms is None else f"{late_ms:,.0f}"


if __name__ == "__main__":
    main()
