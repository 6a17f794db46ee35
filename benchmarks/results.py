"""Figures from rounds, and the JSON file that a run fills as it goes. Pure but for that file.

A group is what alternated in one run: the anchor (poolc in fp32) and the systems beside it. Ratios
are taken within a group only, since the machine may have been another one an hour later.
"""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ANCHOR = "poolc"
Seconds = Mapping[str, Sequence[float]]  # by system, one a round


class Store:
    """Results in a JSON file; what is there already is not measured again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.content: dict[str, Any] = {}
        if path.exists():
            self.content = json.loads(path.read_text(encoding="utf-8"))

    def get(self, *keys: str) -> Any:
        """Return what lies below these keys; None if nothing does."""
        found: Any = self.content
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        return found

    def put(self, value: Any, *keys: str) -> None:
        """Set a value below these keys and write the file in one step."""
        below = self.content
        for key in keys[:-1]:
            below = below.setdefault(key, {})
        below[keys[-1]] = value
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.content, indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, self.path)


def rates(seconds: Sequence[float], tokens: Sequence[int]) -> list[float]:
    """Return tokens a second of each round; rounds beyond the parts begin again with the first."""
    return [tokens[i % len(tokens)] / value for i, value in enumerate(seconds)]


def ratios(seconds: Seconds, system: str, anchor: str = ANCHOR) -> list[float]:
    """Return by how much ``anchor`` was faster in each round."""
    return [other / ours for ours, other in zip(seconds[anchor], seconds[system], strict=True)]


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that ``percent`` of the values do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the median, the smallest and the largest."""
    return statistics.median(values), min(values), max(values)


def groups(systems: Sequence[str], size: int) -> list[list[str]]:
    """Split systems into groups of ``size`` beside the anchor, which is in every group."""
    others = [system for system in systems if system != ANCHOR]
    anchor = [ANCHOR] if ANCHOR in systems else []
    if not others:
        return [anchor] if anchor else []
    return [[*anchor, *others[i : i + size]] for i in range(0, len(others), size)]


def difference(
    rows: npt.NDArray[np.float32], reference: npt.NDArray[np.float32]
) -> dict[str, float]:
    """Compare rows with the reference's: largest difference; worst and mean cosine of vectors."""
    if rows.shape != reference.shape:
        raise ValueError(f"{rows.shape} rows against the reference's {reference.shape}")
    found = {"max_abs": float(np.abs(rows - reference).max())}
    if rows.ndim == 2 and rows.shape[1] > 1:
        norms = np.linalg.norm(rows, axis=1) * np.linalg.norm(reference, axis=1)
        cosines = np.sum(rows * reference, axis=1) / norms
        found |= {"worst_cosine": float(cosines.min()), "mean_cosine": float(cosines.mean())}
    return found


def worst(found: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Return the worst of the comparisons of all parts."""
    rows = list(found)
    chosen: dict[str, Callable[[Iterable[float]], float]]
    chosen = {"max_abs": max, "worst_cosine": min, "mean_cosine": statistics.fmean}
    return {key: chosen[key](row[key] for row in rows) for key in (rows[0] if rows else {})}


def throughput_rows(group: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row a system: the figures of a group's rounds, or why it did not run."""
    rows: list[dict[str, Any]] = []
    for name in group["systems"]:
        seconds = group["seconds"].get(name)
        if not seconds:
            rows.append({"system": name, "not_run": group["not_run"].get(name, "not measured")})
            continue
        rate = spread(rates(seconds, group["tokens"]))
        row = {"system": name, "tokens_per_second": rate[0], "low": rate[1], "high": rate[2]}
        if group["seconds"].get(ANCHOR):
            row["ratio"], row["ratio_low"], row["ratio_high"] = _ratio(group, name)
        flops = statistics.fmean(group["flops"]) / statistics.fmean(group["tokens"])
        peak = group["peak"]["int8" if name in group["int8"] else "fp32"]
        row["share_of_peak"] = rate[0] * flops / peak if peak else None
        rows.append(row | {"difference": group["difference"].get(name, {})})
    return rows


def _ratio(group: Mapping[str, Any], name: str) -> tuple[float, float, float]:
    """Return the ratio of medians, and the smallest and largest ratio of a round."""
    tokens, by_round = group["tokens"], ratios(group["seconds"], name)
    own, other = (statistics.median(rates(group["seconds"][s], tokens)) for s in (ANCHOR, name))
    return own / other, min(by_round), max(by_round)
