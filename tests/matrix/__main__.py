"""Measure the matrix: ``python -m tests.matrix [--family NAME ...] [--head NAME ...]``.

Every family runs in a process of its own, so that its memory comes back. Writes docs/models.json,
keeping the cells that it did not measure, and docs/models.md from it. Exits with 1 where a cell is
out of bounds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.matrix.cells import Cell, cells
from tests.matrix.families import FAMILIES
from tests.matrix.heads import HEADS
from tests.matrix.page import MEASURED, PAGE, failures, render


def main() -> int:
    """Run what the arguments name. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="tests.matrix", description=__doc__)
    parser.add_argument("--family", action="append", choices=list(FAMILIES), default=[])
    parser.add_argument("--head", action="append", choices=list(HEADS), default=[])
    parser.add_argument("--in-process", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.in_process:
        json.dump(measure_family(asked.family[0], asked.head or list(HEADS)), sys.stdout)
        return 0
    code = 0
    for family in asked.family or FAMILIES:
        # After every family: a run that is stopped keeps what it measured.
        code = _publish(_measure_apart(family, asked.head))
    return code


def measure_family(family: str, heads: list[str]) -> dict[str, Any]:
    """Measure a family's cells in this process."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    found = {}
    for cell in cells():
        if cell.family == family and cell.head in heads:
            found[cell.name] = _measure(cell)
            _say(_line(cell, found[cell.name]))
    return found


def _measure(cell: Cell) -> dict[str, Any]:
    from tests.matrix.compare import compile_folder

    place = {"family": cell.family, "head": cell.head}
    if cell.reason is not None:
        return {**place, "reason": cell.reason}
    started, head = time.monotonic(), HEADS[cell.head]
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        folder.mkdir()
        try:
            head.build(FAMILIES[cell.family], folder)
            engine = compile_folder(folder, Path(temporary) / "store")
            result = head.measure(folder, engine)
            engine.close()
        except Exception as error:  # a broken cell is a result; the others are still measured
            traceback.print_exc()
            return {**place, "failed": f"{type(error).__name__}: {error}"}
    seconds = round(time.monotonic() - started, 1)
    return {
        **place,
        "class": engine.spec.architecture,
        **asdict(result),
        "seconds": seconds,
    }


def _measure_apart(family: str, heads: list[str]) -> dict[str, Any]:
    """Measure in a process of its own; its last line is the result."""
    command = [sys.executable, "-m", "tests.matrix", "--in-process", "--family", family]
    command += [argument for head in heads for argument in ("--head", head)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _publish(measured: dict[str, Any]) -> int:
    from poolc.compiler.report import tool_versions

    known = json.loads(MEASURED.read_text(encoding="utf-8")) if MEASURED.exists() else {"cells": []}
    merged = {f"{cell['family']}/{cell['head']}": cell for cell in known["cells"]} | measured
    results = [merged[cell.name] for cell in cells() if cell.name in merged]
    page = {
        "tools": tool_versions(),
        "families": {family.name: family.title for family in FAMILIES.values()},
        "heads": {head.name: head.title for head in HEADS.values()},
        "cells": results,
    }
    MEASURED.write_text(json.dumps(page, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    PAGE.write_text(render(page), encoding="utf-8")
    failed = failures(page)
    for line in failed:
        _say(line)
    return 1 if failed else 0


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _line(cell: Cell, result: dict[str, Any]) -> str:
    if "error" in result:
        return (
            f"{cell.name}: {result['error']:.1e}, invariance {result['invariance']:.1e}, "
            f"{result['seconds']} s"
        )
    return f"{cell.name}: {result.get('failed') or result['reason']}"


if __name__ == "__main__":
    sys.exit(main())
