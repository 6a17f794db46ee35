"""What the activations of a model look like: the fp32 graph runs over texts and is watched.

The texts come with poolc (``texts.txt``) or from the user; no evaluation data takes part.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from poolc.compiler.quantize.linears import Group
from poolc.compiler.quantize.schemes import Activations
from poolc.errors import InvalidOption
from poolc.runtime.backends.base import Feeds
from poolc.runtime.backends.onnxruntime import import_onnxruntime, session_options
from poolc.runtime.bulk.columns import Columns
from poolc.runtime.bulk.records import read_files
from poolc.runtime.request import Item
from poolc.spec import ATTENTION_MASK

_SAMPLE_ROWS = 256  # tokens of each activation that schemes are tried on
_MOST_ITEMS = 512  # of the user's, from the start of the file


def shipped_texts() -> list[str]:
    """Return the texts that come with poolc, one a line of ``texts.txt``."""
    text = files("poolc.compiler.quantize").joinpath("texts.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line]


def read_texts(path: Path) -> list[Item]:
    """Read the user's texts: one a line, or JSON lines of texts or pairs.

    Raises InputError with file and line, InvalidOption for a file without any.
    """
    pairs = _holds_pairs(path)
    records = read_files([path], Columns(), pairs=pairs)
    items = [record.item for record, _ in zip(records, range(_MOST_ITEMS), strict=False)]
    if not items:
        raise InvalidOption(f"{path} holds no text to calibrate with", param="calibrate")
    return list(items)


def _holds_pairs(path: Path) -> bool:
    if path.suffix not in (".jsonl", ".ndjson"):
        return False
    with path.open(encoding="utf-8") as file:
        line = next((line for line in file if line.strip()), "{}")
    try:
        first = json.loads(line)
    except json.JSONDecodeError:  # reading it as text tells the line
        return False
    return isinstance(first, dict) and "text" not in first


def collect(
    model: ir.Model, groups: Sequence[Group], batches: Iterable[Feeds]
) -> dict[str, Activations]:
    """Run micro-batches through the fp32 graph; return what each group's input looked like."""
    watched = model.clone()
    names = [group.name for group in groups]
    values = {value.name: value for node in watched.graph for value in node.outputs}
    watched.graph.outputs.clear()
    watched.graph.outputs.extend(values[name] for name in names)
    seen = {name: _Seen() for name in names}
    with TemporaryDirectory() as folder:
        session = open_session(watched, Path(folder))
        for feeds in batches:
            real = feeds[ATTENTION_MASK].astype(bool)
            for name, found in zip(names, session.run(names, dict(feeds)), strict=True):
                seen[name].add(_tokens(found, real))
    return {name: one.result() for name, one in seen.items()}


def open_session(model: ir.Model, folder: Path) -> Any:
    """Open a session over a graph that is in memory; its weights lie in ``folder`` meanwhile."""
    ort = import_onnxruntime()
    path = folder / "model.onnx"
    ir.save(model, path, external_data="model.onnx.data")  # one file may not exceed 2 GB
    return ort.InferenceSession(str(path), session_options(ort), providers=["CPUExecutionProvider"])


def _tokens(values: npt.NDArray[np.float32], real: npt.NDArray[np.bool_]) -> Any:
    """Return the rows of tokens that are not padding, [tokens, K]."""
    if values.shape[:2] == real.shape:
        return values[real]
    rows = values.reshape(-1, values.shape[-1])  # flattened before the product, as GPT-2 does
    return rows[real.reshape(-1)] if len(rows) == real.size else rows


@dataclass(slots=True)
class _Seen:
    lowest: Any = None
    highest: Any = None
    rows: list[Any] = field(default_factory=list)

    def add(self, tokens: npt.NDArray[np.float32]) -> None:
        low, high = tokens.min(axis=0), tokens.max(axis=0)
        self.lowest = low if self.lowest is None else np.minimum(self.lowest, low)
        self.highest = high if self.highest is None else np.maximum(self.highest, high)
        self.rows.append(tokens[:: max(1, len(tokens) // 16)])

    def result(self) -> Activations:
        rows = np.concatenate(self.rows)
        step = max(1, len(rows) // _SAMPLE_ROWS)
        return Activations(self.lowest, self.highest, rows[::step][:_SAMPLE_ROWS])


def of_route(batches: Mapping[str, list[Feeds]], route: str) -> list[Feeds]:
    """Return the micro-batches of a route; those of all routes where none was asked of it."""
    return batches.get(route) or [feeds for group in batches.values() for feeds in group]
