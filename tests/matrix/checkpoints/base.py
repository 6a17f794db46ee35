"""What a row of the page's second table is, and how answers become its numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.matrix.compare import Measured, difference

if TYPE_CHECKING:
    from poolc.runtime.engine import Engine

UPSTREAM_NOT_RUN = "layout tested, upstream code not run"
Ask = Callable[[list[Any]], Iterable[Any]]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A kind of checkpoint that is more than a family with a head.

    ``mirrors`` names the published models of this kind. ``build`` writes into an empty folder and
    returns the folder below it that is compiled, with ``options``; what else it writes there is
    for ``measure``, which compares the artifact with what defines the model.
    """

    name: str
    title: str
    mirrors: str
    build: Callable[[Path], Path]
    measure: Callable[[Path, Engine], Measured]
    options: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


def compared(
    reference: str, ask: Ask, items: Sequence[Any], expected: Sequence[Any], *, longest: int
) -> Measured:
    """Ask for all items in one batch and for each alone; compare with one answer an item."""
    found = list(ask([*items]))
    alone = [next(iter(ask([item]))) for item in items]
    apart = [float(np.abs(a - b).max(initial=0)) for a, b in zip(found, alone, strict=True)]
    return Measured(reference, difference(found, expected), None, max(apart), longest)


def worst(*parts: Measured) -> Measured:
    """Return the largest figures of several comparisons with one reference."""
    return Measured(
        parts[0].reference,
        max(part.error for part in parts),
        None,
        max(part.invariance for part in parts),
        max(part.longest for part in parts),
    )
