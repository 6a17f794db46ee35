"""How many workers a job has, and what each of them gets. Plain data: imports no Ray."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from poolc.errors import InvalidOption
from poolc.spec import Target

_RANGE = re.compile(r"(\d+)(?:\.\.(\d*))?$")


@dataclass(frozen=True, slots=True)
class Workers:
    """The workers of a job, each a process with the model.

    There are ``least`` from the beginning, and up to ``most`` while parts wait; None: as many as
    the cluster has room for when the job begins. ``num_cpus`` and ``num_gpus`` are what Ray keeps
    for each (None: a GPU for artifacts that run on GPUs), and the cores that it computes on.
    ``resources`` are others that nodes must have, as ``ray.remote`` takes them.
    """

    least: int = 1
    most: int | None = None
    num_cpus: float = 1
    num_gpus: float | None = None
    resources: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise InvalidOption for what no cluster can give."""
        if self.least < 1 or (self.most is not None and self.most < self.least):
            raise InvalidOption(
                f"workers are {self.least} to {self.most}; allowed: 1 or more, and no more at "
                "first than at most",
                param="workers",
            )
        if self.num_cpus <= 0:
            raise InvalidOption(
                f"num_cpus is {self.num_cpus:g}; allowed: more than 0", param="num_cpus"
            )
        if self.num_gpus is not None and self.num_gpus < 0:
            raise InvalidOption(
                f"num_gpus is {self.num_gpus:g}; allowed: 0 or more", param="num_gpus"
            )

    @property
    def num_cores(self) -> int:
        """Cores that a worker computes on."""
        return math.ceil(self.num_cpus)

    def options(self, target: Target) -> dict[str, Any]:
        """Return what ``ray.remote`` is told of one worker."""
        return {
            "num_cpus": self.num_cpus,
            "num_gpus": self.gpus(target),
            "resources": dict(self.resources),
        }

    def gpus(self, target: Target) -> float:
        """Return the GPUs that a worker gets."""
        return float(target is not Target.CPU) if self.num_gpus is None else self.num_gpus

    def room(self, target: Target, has: Mapping[str, float]) -> int:
        """Return how many workers fit into a cluster of these resources, by their sums."""
        needs = {"CPU": self.num_cpus, "GPU": self.gpus(target), **self.resources}
        return min(int(has.get(name, 0) / need) for name, need in needs.items() if need)


def parse_workers(given: str | int | tuple[int, int | None]) -> tuple[int, int | None]:
    """Return least and most workers: 4, "4", "1..4", "1.." (as there is room) or (1, 4).

    Raises InvalidOption.
    """
    if isinstance(given, int):
        return given, given
    if isinstance(given, tuple):
        return given
    match = _RANGE.match(given)
    if match is None:
        raise InvalidOption(
            f"workers is {given!r}; allowed: how many (4), or least and most (1..4, 1..)",
            param="workers",
        )
    least, most = match.groups()
    return int(least), int(least) if most is None else int(most) if most else None
