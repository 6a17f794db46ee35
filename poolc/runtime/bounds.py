"""How far an artifact of each precision may be from its reference, and the cosines found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from poolc.spec import Precision

FP32_BOUND = 1e-5  # times max(1, largest reference value), for every output
FEW_NUMBERS = 16  # below this a cosine says little


@dataclass(frozen=True, slots=True)
class Bounds:
    """``error`` is |a - b| / max(1, max |b|): of everything where there are no cosines, else of
    outputs of few numbers (logits, scores)."""

    error: float
    invariance: float = 1e-5  # alone against batched, times max(1, largest value)
    mean_cosine: float | None = None
    worst_cosine: float | None = None

    def limits_error(self, width: int) -> bool:
        """Say whether the error of an output of so many numbers is bounded, or its cosine."""
        return self.mean_cosine is None or width < FEW_NUMBERS


BOUNDS: Mapping[Precision, Bounds] = {
    Precision.FP32: Bounds(FP32_BOUND),
    # Integer products add exactly, whatever the batch; in half precision another size of a product
    # is another kernel, which rounds otherwise.
    Precision.INT8: Bounds(5e-2, mean_cosine=0.995, worst_cosine=0.98),
    # A number that rounds to the other of two neighbours of E4M3 turns by a sixteenth, in a product
    # of many.
    Precision.FP8: Bounds(5e-2, 3e-2, mean_cosine=0.995, worst_cosine=0.98),
    Precision.FP16: Bounds(5e-3, 5e-3, mean_cosine=0.9999, worst_cosine=0.9999),
    Precision.BF16: Bounds(3e-2, 3e-2, mean_cosine=0.999, worst_cosine=0.999),
}


@dataclass(slots=True)
class Cosines:
    """Cosines of all vectors compared so far that have 16 numbers or more."""

    count: int = 0
    total: float = 0.0
    worst: float | None = None
    culprit: str = ""  # what the worst one is of

    @property
    def mean(self) -> float | None:
        """The mean; None where nothing was long enough."""
        return self.total / self.count if self.count else None

    def add(self, values: npt.NDArray[Any], target: npt.NDArray[Any], what: str) -> None:
        """Compare [width] or [tokens, width] with a reference of the same shape.

        The tokens of a text are one vector: a full stop's may turn where the text's does not.
        """
        if values.shape[-1] < FEW_NUMBERS or not values.size:
            return
        left, right = (a.astype(np.float64).reshape(-1) for a in (values, target))
        norm = float(np.linalg.norm(left) * np.linalg.norm(right))
        # Two vectors of zeros are alike; sparse ones can be.
        found = float(left @ right) / norm if norm > 0 else float((left == right).all())
        self.count += 1
        self.total += found
        if self.worst is None or found < self.worst:
            self.worst, self.culprit = found, what
