"""What a comparison found: the figures, by name, and whether they keep to thresholds.

Knows no models and draws nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from poolc.compare.figures import PERCENTILES, Distances, Neighbours, correlation
from poolc.compare.sides import Identity
from poolc.compare.speed import Speed
from poolc.errors import InvalidOption, nearest
from poolc.runtime.outputs import Float32
from poolc.runtime.request import Item
from poolc.spec import Task

_SHOWN_CHARS = 100

# Every figure that a comparison may have, and what it is.
FIGURES: Mapping[str, str] = {
    "cosine": "cosine of both vectors of a text, mean",
    "cosine_min": "the lowest of them",
    **{f"cosine_p{p}": f"{p} % of the texts are below" for p in PERCENTILES},
    "max_abs": "largest difference of any number of a vector",
    "overlap": "share of the nearest texts that are the same, mean",
    "overlap_min": "the lowest of the sampled texts",
    "same_nearest": "share of the sampled texts whose nearest text is the same",
    "rank_correlation": "Spearman's correlation of the similarities to A's nearest texts, mean",
    "rank_correlation_min": "the lowest of the sampled texts",
    "max_difference": "largest difference of a score or probability",
    "mean_difference": "mean over the rows of the largest difference of each",
    "label_agreement": "share of the rows with the same best label",
    "correlation": "Spearman's correlation of all scores",
    "quality_a": "task metric of A on the labelled rows",
    "quality_b": "task metric of B",
    "quality_change": "B less A",
    "speed": "items a second, B to A, median of alternating rounds",
}

Worst = Sequence[tuple[str, float]]


@dataclass(frozen=True, slots=True, eq=False)
class Vectors:
    """Vectors of ``num_texts`` distinct texts; ``neighbours`` None of too few of them.

    ``worst``: the texts whose cosines are the lowest, and those.
    """

    size: int
    num_texts: int
    distances: Distances
    neighbours: Neighbours | None
    worst: Worst

    def figures(self) -> dict[str, float]:
        """Return the figures by name."""
        cosines = self.distances.cosines
        found = {"cosine": float(cosines.mean()), "cosine_min": float(cosines.min())}
        for percentile in PERCENTILES:
            found[f"cosine_p{percentile}"] = float(np.percentile(cosines, percentile))
        found["max_abs"] = float(self.distances.differences.max())
        near = self.neighbours
        if near is not None:
            known = near.correlations[~np.isnan(near.correlations)]
            found |= {
                "overlap": float(near.overlaps.mean()),
                "overlap_min": float(near.overlaps.min()),
                "same_nearest": near.same_nearest,
                "rank_correlation": float(known.mean()) if len(known) else math.nan,
                "rank_correlation_min": float(known.min()) if len(known) else math.nan,
            }
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """Scores, rewards or probabilities [n, width] of both; ``differences`` [n], largest a row.

    ``quality``: the task metric of both on labelled rows, called ``metric``.
    """

    values: tuple[Float32, Float32]
    differences: npt.NDArray[np.float64]
    labels: Sequence[str]  # of classes; empty: the values are scores
    metric: str | None
    quality: tuple[float, float] | None
    worst: Worst

    def figures(self) -> dict[str, float]:
        """Return the figures by name."""
        first, second = self.values
        found = {
            "max_difference": float(self.differences.max()),
            "mean_difference": float(self.differences.mean()),
        }
        if self.labels:
            found["label_agreement"] = float(np.mean(first.argmax(1) == second.argmax(1)))
        else:
            found["correlation"] = correlation(first[:, 0], second[:, 0])
        if self.quality is not None:
            before, after = self.quality
            found |= {"quality_a": before, "quality_b": after, "quality_change": after - before}
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """Two models on the rows of a file; A is ``sides[0]``. ``max_length`` is in tokens, of both
    where an original takes part; None: each model's own."""

    task: Task
    file: str
    num_rows: int
    max_length: int | None
    seed: int
    sides: tuple[Identity, Identity]
    vectors: Vectors | None
    answers: Answers | None
    speed: Speed | None

    @property
    def same_space(self) -> bool | None:
        """Whether vectors of both may be mixed; None where one side does not say."""
        first, second = (side.space_id for side in self.sides)
        return None if first is None or second is None else first == second

    def figures(self) -> dict[str, float]:
        """Return every figure by name; speed is that of B to that of A."""
        found: dict[str, float] = {}
        for part in (self.vectors, self.answers):
            if part is not None:
                found |= part.figures()
        if self.speed is not None:
            found["speed"] = self.speed.ratio
        return found

    def to_plain(self) -> dict[str, Any]:
        """Return all of it as JSON values; a figure that is not a number is null."""
        figures = self.figures()
        plain: dict[str, Any] = {
            "task": self.task.value,
            "file": self.file,
            "rows": self.num_rows,
            "max_length": self.max_length,
            "seed": self.seed,
            "same_space": self.same_space,
            "a": asdict(self.sides[0]),
            "b": asdict(self.sides[1]),
            "figures": {n: None if math.isnan(v) else v for n, v in figures.items()},
        }
        if self.vectors is not None:
            near = self.vectors.neighbours
            plain["vectors"] = {
                "size": self.vectors.size,
                "texts": self.vectors.num_texts,
                "worst": _worst("cosine", self.vectors.worst),
            }
            if near is not None:
                told = {"queries": len(near.overlaps), "k": near.k, "ranked": near.ranked}
                plain["neighbours"] = told
        if self.answers is not None:
            told_worst = _worst("difference", self.answers.worst)
            plain["answers"] = {"metric": self.answers.metric, "worst": told_worst}
        if self.speed is not None:
            plain["speed"] = asdict(self.speed) | {"spread": list(self.speed.spread)}
        return plain


@dataclass(frozen=True, slots=True)
class Threshold:
    """A figure that has to be ``bound`` at least, or with ``at_most`` no more."""

    name: str
    bound: float
    at_most: bool = False

    @classmethod
    def parse(cls, text: str, *, at_most: bool) -> Threshold:
        """Read NAME=NUMBER. Raises InvalidOption."""
        name, _, number = text.partition("=")
        option = "fail_over" if at_most else "fail_under"
        try:
            bound = float(number)
        except ValueError:
            bound = math.nan
        name = name.strip().replace("-", "_")
        if name and name not in FIGURES:
            raise InvalidOption(
                f"--{option.replace('_', '-')}: there is no figure {name!r}; "
                f"{nearest(name, list(FIGURES))}",
                param=option,
            )
        if not name or math.isnan(bound):
            raise InvalidOption(
                f"--{option.replace('_', '-')} is {text!r}; allowed: a figure and a number, as in "
                "cosine=0.999",
                param=option,
            )
        return cls(name, bound, at_most)

    def broken_by(self, figures: Mapping[str, float]) -> str | None:
        """Return what is wrong, None where nothing is. Raises InvalidOption for no such figure."""
        if self.name not in figures:
            raise InvalidOption(
                f"this comparison has no {self.name}; it has: {', '.join(figures)}",
                param="fail_over" if self.at_most else "fail_under",
            )
        value = figures[self.name]
        if value <= self.bound if self.at_most else value >= self.bound:
            return None  # what is not a number keeps to nothing
        how = "more" if self.at_most else "less"
        return f"{self.name} is {value:.6g}, {how} than {self.bound:g}"


def shown(item: Item) -> str:
    """Return a text or pair as reports show it: one line, cut."""
    if isinstance(item, tuple):
        return " | ".join(shown(text) for text in item)
    line = " ".join(str(item).split())
    return line if len(line) <= _SHOWN_CHARS else f"{line[: _SHOWN_CHARS - 3]}..."


def _worst(name: str, found: Worst) -> list[dict[str, Any]]:
    return [{"text": text, name: value} for text, value in found]
