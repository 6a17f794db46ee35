"""Measure the matrix: ``python -m tests.matrix [--family NAME ...] [--head NAME ...]
[--checkpoint NAME ...]``; without arguments everything.

Every family and every checkpoint runs in a process of its own, so that its memory comes back.
Writes docs/models.json, keeping what it did not measure, and docs/models.md from it. Exits with 1
where something is out of bounds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from tests.matrix.cells import cells
from tests.matrix.checkpoints import CHECKPOINTS
from tests.matrix.families import FAMILIES
from tests.matrix.heads import HEADS
from tests.matrix.measure import measure_checkpoint, measure_family, say
from tests.matrix.page import MEASURED, PAGE, cell_name, failures, render


def main() -> int:
    """Run what the arguments name. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="tests.matrix", description=__doc__)
    parser.add_argument("--family", action="append", choices=list(FAMILIES), default=[])
    parser.add_argument("--head", action="append", choices=list(HEADS), default=[])
    parser.add_argument("--checkpoint", action="append", choices=list(CHECKPOINTS), default=[])
    parser.add_argument("--in-process", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.in_process:
        json.dump(_measure(asked), sys.stdout)
        return 0
    code = 0
    for job in _jobs(asked):
        # After every process: a run that is stopped keeps what it measured.
        code = _publish(_measure_apart(job))
    return code


def _jobs(asked: argparse.Namespace) -> Iterator[list[str]]:
    """Yield the arguments of each process."""
    everything = not (asked.family or asked.head or asked.checkpoint)
    heads = [argument for head in asked.head for argument in ("--head", head)]
    of_cells = asked.family or (FAMILIES if everything or asked.head else ())
    yield from (["--family", family, *heads] for family in of_cells)
    checkpoints = CHECKPOINTS if everything else asked.checkpoint
    yield from (["--checkpoint", name] for name in checkpoints)


def _measure(asked: argparse.Namespace) -> dict[str, Any]:
    """Return results by name, below the key that they have in docs/models.json."""
    if asked.checkpoint:
        return {"checkpoints": {name: measure_checkpoint(name) for name in asked.checkpoint}}
    return {"cells": measure_family(asked.family[0], asked.head or list(HEADS))}


def _measure_apart(job: list[str]) -> dict[str, Any]:
    """Measure in a process of its own; its last line is the result."""
    command = [sys.executable, "-m", "tests.matrix", "--in-process", *job]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _publish(measured: dict[str, Any]) -> int:
    from poolc.compiler.report import tool_versions

    known = json.loads(MEASURED.read_text(encoding="utf-8")) if MEASURED.exists() else {}
    by_cell = {cell_name(cell): cell for cell in known.get("cells", [])}
    by_cell |= measured.get("cells", {})
    by_name = {row["checkpoint"]: row for row in known.get("checkpoints", [])}
    by_name |= measured.get("checkpoints", {})
    page = {
        "tools": tool_versions(),
        "families": {family.name: family.title for family in FAMILIES.values()},
        "heads": {head.name: head.title for head in HEADS.values()},
        "cells": [by_cell[cell.name] for cell in cells() if cell.name in by_cell],
        "checkpoints": [by_name[name] for name in CHECKPOINTS if name in by_name],
    }
    MEASURED.write_text(json.dumps(page, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    PAGE.write_text(render(page), encoding="utf-8")
    failed = failures(page)
    for line in failed:
        say(line)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
