"""What may be tokenised: a text, a pair of texts or token ids, and nothing else.

Validation of what a caller passes; knows nothing about tokenizers or tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from poolc.errors import InvalidText


def is_text(item: object) -> bool:
    """Return whether a valid item is a text or a pair, and not token ids."""
    return isinstance(item, (str, tuple))


def check_items(
    items: Sequence[Any], vocab_size: int | None = None, indices: Sequence[int] | None = None
) -> None:
    """Raise InvalidText, naming the item, for anything that cannot be tokenised.

    Without ``vocab_size`` any whole number passes for a token id. ``indices`` are what errors call
    the items, instead of their position.
    """
    if all_texts(items) and all(items) and all(map(str.isascii, items)):
        return  # the usual case, quickly
    for index, item in zip(range(len(items)) if indices is None else indices, items, strict=True):
        if not is_plain(item):
            check_item(item, index, vocab_size)


def all_texts(items: Sequence[Any]) -> bool:
    """Return whether every item is a string, quickly: what makes work on the others needless."""
    return set(map(type, items)) == {str}


def is_plain(item: Any) -> bool:
    """Return whether an item is a text that needs no closer look: the usual case, quickly."""
    return item.__class__ is str and item.isascii() and item != ""


def check_item(item: Any, index: int, vocab_size: int | None) -> None:
    """Raise InvalidText for anything but a text, a pair of texts or token ids."""
    if isinstance(item, str):
        _check_text(item, index)
        return
    if isinstance(item, tuple):
        if len(item) != 2 or not all(isinstance(part, str) for part in item):
            raise InvalidText(f"item {index}: a pair must be two strings", index=index)
        for part in item:
            _check_text(part, index)
        return
    if isinstance(item, list) or (isinstance(item, np.ndarray) and item.ndim):
        _check_ids(item, index, vocab_size)
        return
    raise InvalidText(
        f"item {index} is {type(item).__name__}; allowed: a string, a pair of strings, "
        "or a list of token ids",
        index=index,
    )


def _check_text(text: str, index: int) -> None:
    if not text:
        raise InvalidText(f"item {index} is empty: there is nothing to compute", index=index)
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InvalidText(
                f"item {index} is not valid Unicode: a lone surrogate at position {error.start}",
                index=index,
            ) from None


def _check_ids(item: Any, index: int, vocab_size: int | None) -> None:
    if len(item) == 0:
        raise InvalidText(f"item {index} is an empty list of token ids", index=index)
    if isinstance(item, np.ndarray):
        valid = item.ndim == 1 and np.issubdtype(item.dtype, np.integer)
    else:
        kinds = set(map(type, item))
        valid = kinds == {int} or all(
            issubclass(kind, (int, np.integer)) and kind is not bool for kind in kinds
        )
    if not valid:
        raise InvalidText(f"item {index}: token ids must be whole numbers", index=index)
    # Compared before the conversion to int64, which raises or wraps where a number is larger.
    array = isinstance(item, np.ndarray)
    low, high = (item.min(), item.max()) if array else (min(item), max(item))
    if vocab_size is not None and not (low >= 0 and high < vocab_size):
        raise InvalidText(
            f"item {index}: token id {low if low < 0 else high} is outside the vocabulary "
            f"(0 to {vocab_size - 1})",
            index=index,
        )
