"""What two models can be compared by. Refuses what would compare nothing, before any work."""

from __future__ import annotations

from collections.abc import Sequence

from poolc.compare.sides import Side
from poolc.errors import InvalidDimensions, UnsupportedTask
from poolc.runtime.heads.embeddings import check_embedding_size
from poolc.spec import Task

# What single texts and pairs are asked for: the first that both models do.
_OF_TEXTS = (Task.EMBED, Task.CLASSIFY, Task.REWARD)
_OF_PAIRS = (Task.SCORE, Task.CLASSIFY, Task.REWARD)


def both_embed(sides: Sequence[Side]) -> bool:
    """Return whether vectors of whole texts can be compared."""
    return all(Task.EMBED in side.spec.tasks for side in sides)


def common_task(sides: Sequence[Side], *, pairs: bool, dimensions: int | None) -> Task:
    """Return what rows are asked for.

    Raises UnsupportedTask where the models have no such task, or not the same labels, and
    InvalidDimensions where their vectors have not the same size.
    """
    wanted = _OF_PAIRS if pairs else _OF_TEXTS
    task = next((t for t in wanted if all(t in side.spec.tasks for side in sides)), None)
    if task is None:
        told = "; ".join(f"{side.identity.name}: {', '.join(side.spec.tasks)}" for side in sides)
        raise UnsupportedTask(
            f"the two have no task in common that {'pairs' if pairs else 'single texts'} are "
            f"compared by ({', '.join(wanted)}); they do: {told}"
        )
    if both_embed(sides):
        _check_sizes(sides, dimensions)
    elif dimensions is not None:
        raise InvalidDimensions(
            f"dimensions applies to vectors of texts, not to {task}", param="dimensions"
        )
    if task is Task.CLASSIFY:
        _check_labels(sides)
    return task


def _check_sizes(sides: Sequence[Side], dimensions: int | None) -> None:
    if dimensions is not None:
        for side in sides:
            if dimensions != side.spec.embedding_size:
                check_embedding_size(side.spec, Task.EMBED, dimensions)
        return
    sizes = [side.spec.default_dimensions or side.spec.embedding_size or 0 for side in sides]
    if sizes[0] != sizes[1]:
        names = [side.identity.name for side in sides]
        raise InvalidDimensions(
            f"vectors of {names[0]} have {sizes[0]} numbers, those of {names[1]} {sizes[1]}: "
            f"compare them at a size that both models have, e.g. --dimensions {min(sizes)}",
            param="dimensions",
        )


def _check_labels(sides: Sequence[Side]) -> None:
    first, second = (side.spec.labels for side in sides)
    if first != second:
        raise UnsupportedTask(
            f"the labels differ: {_listed(first)} and {_listed(second)}; two classifiers of the "
            "same labels, in the same order, are compared"
        )


def _listed(labels: Sequence[str]) -> str:
    told = ", ".join(labels[:5])
    return f"{told}, ... ({len(labels)})" if len(labels) > 5 else told
