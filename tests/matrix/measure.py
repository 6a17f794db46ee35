"""Build, compile and measure one cell or checkpoint in this process; what fails is a result too."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from tests.matrix.cells import Cell, cells
from tests.matrix.checkpoints import CHECKPOINTS
from tests.matrix.compare import Measured, compile_folder
from tests.matrix.families import FAMILIES
from tests.matrix.heads import HEADS

if TYPE_CHECKING:
    from poolc.runtime.engine import Engine


@dataclass(frozen=True, slots=True)
class _Measurement:
    """``place`` is what the result is known by in docs/models.json."""

    place: dict[str, Any]
    build: Callable[[Path], Path]
    measure: Callable[[Path, Engine], Measured]
    options: dict[str, Any]


def measure_family(family: str, heads: list[str]) -> dict[str, Any]:
    """Measure a family's cells."""
    _tame_libraries()
    found = {}
    for cell in cells():
        if cell.family == family and cell.head in heads:
            found[cell.name] = _measure_cell(cell)
            say(_line(cell.name, found[cell.name]))
    return found


def measure_checkpoint(name: str) -> dict[str, Any]:
    """Measure one checkpoint."""
    _tame_libraries()
    row = CHECKPOINTS[name]
    place = {"checkpoint": name, "title": row.title, "mirrors": row.mirrors, "note": row.note}
    engine, result = _run(_Measurement(place, row.build, row.measure, dict(row.options)))
    if engine is not None:
        result["tasks"] = [str(task) for task in engine.spec.tasks]
    say(_line(name, result))
    return result


def _measure_cell(cell: Cell) -> dict[str, Any]:
    place = {"family": cell.family, "head": cell.head}
    if cell.reason is not None:
        return {**place, "reason": cell.reason}
    head = HEADS[cell.head]

    def build(root: Path) -> Path:
        folder = root / "model"
        folder.mkdir()
        head.build(FAMILIES[cell.family], folder)
        return folder

    return _run(_Measurement(place, build, head.measure, {}))[1]


def _run(asked: _Measurement) -> tuple[Engine | None, dict[str, Any]]:
    started = time.monotonic()
    with TemporaryDirectory() as temporary:
        root = Path(temporary)
        try:
            folder = asked.build(root)
            engine = compile_folder(folder, root / "store", **asked.options)
            measured = asked.measure(folder, engine)
            engine.close()
        except Exception as error:  # a broken cell is a result; the others are still measured
            traceback.print_exc()
            return None, {**asked.place, "failed": f"{type(error).__name__}: {error}"}
    seconds = round(time.monotonic() - started, 1)
    result = {"class": engine.spec.architecture, **asdict(measured), "seconds": seconds}
    return engine, {**asked.place, **result}


def _tame_libraries() -> None:
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)


def say(line: str) -> None:
    """Write a line beside the results."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _line(name: str, result: dict[str, Any]) -> str:
    if "error" in result:
        figures = f"{result['error']:.1e}, invariance {result['invariance']:.1e}"
        return f"{name}: {figures}, {result['seconds']} s"
    return f"{name}: {result.get('failed') or result['reason']}"
