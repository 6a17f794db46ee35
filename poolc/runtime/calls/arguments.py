"""What callers pass as texts, as lists and pairs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from poolc.errors import InvalidText
from poolc.runtime.request import Item

Texts = str | Sequence[Item]


def as_pairs(left: Texts, right: Texts) -> list[tuple[Any, Any]]:
    """Pair texts 1-1, 1-N or N-N.

    Raises InvalidText for other shapes or an empty side.
    """
    lefts, rights = as_list(left), as_list(right)
    if not lefts or not rights:
        raise InvalidText("score needs at least one text on each side")
    if len(lefts) == 1:
        lefts = lefts * len(rights)
    if len(lefts) != len(rights):
        raise InvalidText(
            f"score got {len(lefts)} and {len(rights)} texts; allowed: 1 and 1, 1 and N, N and N"
        )
    return list(zip(lefts, rights, strict=True))


def as_items(texts: Any) -> list[Any]:
    """Like ``as_list``, for tasks that read pairs: there a lone tuple is one pair."""
    return [texts] if isinstance(texts, tuple) else as_list(texts)


def as_list(texts: Any) -> list[Any]:
    return list(as_iterable(texts))


def as_iterable(texts: Any) -> Iterable[Any]:
    """Return ``texts``, a lone string as a list. Raises InvalidText for what holds no texts."""
    if isinstance(texts, str):
        return [texts]
    unsized = isinstance(texts, np.ndarray) and not texts.ndim
    if isinstance(texts, Iterable) and not (unsized or isinstance(texts, (bytes, dict))):
        return texts
    raise InvalidText(f"got {type(texts).__name__}; allowed: a string or a list of strings")
