"""Which groups of products are not quantised: each is quantised alone and its cost measured.

The cost is what it does to the model's answers on texts that calibration did not see. Groups are
left as they were, the most costly for their size first, until the answers are close enough.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from poolc.compiler.quantize.calibration import open_session
from poolc.compiler.quantize.linears import Group
from poolc.compiler.quantize.schemes import Choice, Scheme
from poolc.runtime.backends.base import Feeds
from poolc.spec import ATTENTION_MASK, TOKEN_OUTPUTS

Rows = Mapping[str, npt.NDArray[np.float32]]  # by output; tokens of all texts under each other

# Twice as strict as the gate on its own texts, for those that nobody has seen.
MEAN_COSINE, WORST_COSINE = 0.9975, 0.99
SMALL_ERROR = 0.025  # of outputs of few numbers, over max(1, largest)
_FEW_NUMBERS = 16
# Beyond this share of the multiplications it is not worth its name: the gate then decides.
_MOST_LEFT = 0.15


@dataclass(frozen=True, slots=True)
class Distance:
    """How far answers are from fp32: cosines of vectors, differences of outputs of few numbers."""

    mean_cosine: float = 1.0
    worst_cosine: float = 1.0
    error: float = 0.0  # largest |a - b| / max(1, largest |b|)

    @property
    def is_close(self) -> bool:
        """Whether nothing more has to be left in fp32."""
        return (
            self.mean_cosine >= MEAN_COSINE
            and self.worst_cosine >= WORST_COSINE
            and self.error <= SMALL_ERROR
        )

    @property
    def cost(self) -> float:
        """One number to rank by: 0 where nothing changed."""
        return (1 - self.mean_cosine) + 0.1 * (1 - self.worst_cosine) + self.error


def distance(found: Rows, exact: Rows) -> Distance:
    """Compare the answers of two graphs on the same micro-batches."""
    cosines, error = [np.ones(1)], 0.0
    for name, values in exact.items():
        others = found[name]
        if values.shape[-1] < _FEW_NUMBERS:
            size = max(1.0, float(np.abs(values).max(initial=0.0)))
            error = max(error, float(np.abs(others - values).max(initial=0.0)) / size)
            continue
        norms = np.linalg.norm(values, axis=-1) * np.linalg.norm(others, axis=-1)
        cosines.append((values * others).sum(axis=-1) / np.maximum(norms, 1e-30))
    every = np.concatenate(cosines)[1:] if len(cosines) > 1 else cosines[0]
    return Distance(float(every.mean()), float(every.min()), error)


class Trial:
    """Runs quantised variants of one graph over the same micro-batches."""

    def __init__(
        self,
        model: ir.Model,
        outputs: Sequence[str],
        batches: Sequence[Feeds],
        rewrite: Callable[[Mapping[str, Choice]], ir.passes.InPlacePass],
    ) -> None:
        self._model, self._outputs, self._batches = model, outputs, batches
        self._rewrite = rewrite
        self._exact = self._run({})

    def distance(self, choices: Mapping[str, Choice]) -> Distance:
        """Return how far the graph with these choices is from fp32."""
        return distance(self._run(choices), self._exact)

    def _run(self, choices: Mapping[str, Choice]) -> Rows:
        model = self._rewrite(choices)(self._model.clone()).model
        rows: dict[str, list[npt.NDArray[np.float32]]] = {name: [] for name in self._outputs}
        with TemporaryDirectory() as folder:
            session = open_session(model, Path(folder))
            for feeds in self._batches:
                found = session.run(list(self._outputs), dict(feeds))
                for name, values in zip(self._outputs, found, strict=True):
                    real = feeds[ATTENTION_MASK].astype(bool)
                    rows[name].append(values[real] if name in TOKEN_OUTPUTS else values)
        return {name: np.concatenate(parts) for name, parts in rows.items()}


@dataclass(frozen=True, slots=True)
class Found:
    """Choices for all groups, how far they are from fp32, and what each group costs alone."""

    choices: Mapping[str, Choice]
    distance: Distance
    costs: Mapping[str, float] = field(default_factory=dict)  # empty where nothing had to be left
    share_left: float = 0.0  # of the weights, as they were


def leave_worst(groups: Sequence[Group], choices: Mapping[str, Choice], trial: Trial) -> Found:
    """Leave the most harmful groups as they are, until the answers are close enough.

    At most 15 % of the weights.

    Costs are measured only where the answers are not close enough without.
    """
    chosen = dict(choices)
    found = trial.distance(chosen)
    if found.is_close:
        return Found(chosen, found)
    costs = {name: trial.distance({name: choice}).cost for name, choice in chosen.items()}
    sizes = {group.name: group.num_weights for group in groups}
    left, total = 0, sum(sizes.values())
    for name in sorted(costs, key=lambda name: -costs[name] / sizes[name]):
        if left + sizes[name] > _MOST_LEFT * total:
            continue
        chosen[name] = replace(chosen[name], scheme=Scheme.FP32)
        left += sizes[name]
        found = trial.distance(chosen)
        if found.is_close:
            break
    return Found(chosen, found, costs, left / total)
