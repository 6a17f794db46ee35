"""What is compared: an artifact on its runtime, or a model in its own library.

A side answers windows of items with one row of numbers an item; what the numbers are is the
task's: a vector, probabilities, a score. Knows nothing about comparing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from poolc.errors import UnsupportedTask
from poolc.runtime.engine import Engine
from poolc.runtime.outputs import Classification, Float32, Ragged
from poolc.runtime.request import Item, Params
from poolc.spec import ModelSpec, Precision, Task


@dataclass(frozen=True, slots=True)
class Asked:
    """One question to both sides. ``max_length`` None: each model's own."""

    task: Task
    dimensions: int | None = None
    label: str | None = None
    max_length: int | None = None


@dataclass(frozen=True, slots=True)
class Identity:
    """Who answers: ``name`` as it was given; ids of artifacts, the library of an original."""

    name: str
    engine: str
    precision: Precision
    artifact_id: str | None = None
    space_id: str | None = None


class Side(Protocol):
    """One of the two."""

    identity: Identity
    spec: ModelSpec
    longest: int | None  # tokens that it can read at most, where that is less than its model's

    def answers(self, asked: Asked, items: Sequence[Item]) -> Iterator[Float32]:
        """Yield float32 [window, width] of consecutive items, in their order."""
        ...

    def close(self) -> None:
        """Release the model."""
        ...


class EngineSide:
    """An artifact."""

    def __init__(self, name: str, engine: Engine) -> None:
        artifact = engine.artifact
        self.engine = engine
        self.longest: int | None = None
        self.spec = engine.spec
        self.identity = Identity(
            name,
            engine.backend_name,
            artifact.manifest.precision,
            artifact.artifact_id,
            artifact.space_id,
        )

    def answers(self, asked: Asked, items: Sequence[Item]) -> Iterator[Float32]:
        """See ``Side``. Raises UnsupportedTask for rewards of tokens and steps."""
        longest = self.spec.max_length
        params = Params(
            truncate=True,
            dimensions=asked.dimensions,
            label=asked.label,
            max_length=None if asked.max_length is None else min(asked.max_length, longest),
        )
        for window in self.engine.stream(asked.task, items, params):
            yield _rows(window)

    def close(self) -> None:
        """See ``Side``."""
        self.engine.close()


def _rows(window: Any) -> Float32:
    if isinstance(window, Classification):
        return window.probs
    if isinstance(window, Ragged):
        raise UnsupportedTask("rewards of tokens or steps are not compared; whole texts' are")
    rows = np.asarray(window, np.float32)
    return rows if rows.ndim == 2 else rows[:, None]
