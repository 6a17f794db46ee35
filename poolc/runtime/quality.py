"""A task metric of an artifact on labelled texts, before and after a change of precision.

Pairs with a score: Spearman's correlation of the model's scores and the labels, x 100, as MTEB's
STS tasks report it. Texts with a label: accuracy of a classifier, in percent. Nothing that
calibration reads takes part.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from poolc.errors import InputError, InvalidOption
from poolc.runtime.bulk.columns import PAIR_COLUMNS
from poolc.runtime.engine import Engine
from poolc.spec import Task

PAIRS = (*PAIR_COLUMNS, ("s1", "s2"))
SPEARMAN, ACCURACY = "spearman_x_100", "accuracy_percent"


@dataclass(frozen=True, slots=True)
class Labelled:
    """The lines of a file: single texts with a class, or pairs (left, right) with a score."""

    file: str
    metric: str
    left: list[str]
    right: list[str]  # of pairs
    labels: list[Any]


def read_labelled(path: Path) -> Labelled:
    """Read JSON lines. Raises InputError with file and line, InvalidOption for other columns."""
    rows = list(_rows(path))
    if not rows:
        raise InvalidOption(f"{path} holds no line", param="quality")
    first = rows[0]
    pair = next((names for names in PAIRS if all(name in first for name in names)), None)
    names: tuple[str, ...]
    if pair is not None and "score" in first:
        names, metric = (*pair, "score"), SPEARMAN
    elif "text" in first and "label" in first:
        names, metric = ("text", "label"), ACCURACY
    else:
        raise InvalidOption(
            f"{path}: quality is measured on JSON lines of two texts (sentence1, sentence2) and a "
            f"score, or of a text and a label; the first line has: {', '.join(first)}",
            param="quality",
        )
    columns: list[list[Any]] = [[] for _ in names]
    for number, row in enumerate(rows, 1):
        for name, column in zip(names, columns, strict=True):
            if name not in row:
                raise InputError(f"{path}, line {number}: there is no {name!r}", param="quality")
            column.append(row[name])
    right = columns[1] if metric == SPEARMAN else []
    return Labelled(path.name, metric, columns[0], right, columns[-1])


def measure(engine: Engine, data: Labelled) -> float:
    """Return the metric. Raises UnsupportedTask where the model does not do the task."""
    if data.metric == SPEARMAN:
        engine.require(Task.SCORE)
        return 100 * spearman(engine.score(data.left, data.right, truncate=True), data.labels)
    engine.require(Task.CLASSIFY)
    probs = engine.classify(data.left, truncate=True).probs
    return accuracy(probs, data.labels, engine.spec.labels)


def accuracy(probs: npt.NDArray[Any], labels: Sequence[Any], names: Sequence[str]) -> float:
    """Return in percent how often the largest of [n, labels] is the label, by name or place."""
    hits = [
        label in (place, names[place])
        for place, label in zip(probs.argmax(axis=1).tolist(), labels, strict=True)
    ]
    return 100 * float(np.mean(hits))


def spearman(left: npt.ArrayLike, right: npt.ArrayLike) -> float:
    """Return Spearman's rank correlation: Pearson's, of ranks in which equals share their mean."""
    ranks = np.stack([_ranks(np.asarray(values, np.float64)) for values in (left, right)])
    left_ranks, right_ranks = ranks - ranks.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(left_ranks) * np.linalg.norm(right_ranks)
    return float(left_ranks @ right_ranks / norm)


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean: npt.NDArray[np.float64] = last - (counts - 1) / 2
    return mean[places]


def _rows(path: Path) -> list[Mapping[str, Any]]:
    rows: list[Mapping[str, Any]] = []
    try:
        lines = path.expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}", param="quality") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(
                f"{path}, line {number} is not JSON: {error.msg}", param="quality"
            ) from error
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number} is no JSON object", param="quality")
        rows.append(row)
    return rows
