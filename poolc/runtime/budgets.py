"""How many tokens each text of a pair may have, by ``Params.max_query_length`` and
``max_document_length``: what is beyond is cut off at a token's end.

Tokens are the model's own, without special tokens. Knows nothing about templates or graphs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from poolc.errors import InvalidOption, TextTooLong
from poolc.runtime.excerpts import excerpts, is_long, most_chars
from poolc.runtime.items import all_texts, check_item
from poolc.runtime.request import Params
from poolc.runtime.tokenize import TextTokenizer

# Texts that are in the tokenizer's hands at once.
_TEXTS = 256


def check_budgets(params: Params, max_length: int, *, pairs: bool) -> None:
    """Refuse budgets that are no numbers of tokens below ``max_length``, or of what has no pairs.

    Raises InvalidOption.
    """
    for name in ("max_query_length", "max_document_length"):
        value = getattr(params, name)
        if value is None:
            continue
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or not 1 <= value < max_length:
            raise InvalidOption(
                f"{name} is {value!r}; allowed: 1 to {max_length - 1} tokens", param=name
            )
        if not pairs:
            raise InvalidOption(
                f"{name} shortens the texts of a pair, and this call has none: leave it out",
                param=name,
            )


def within_budgets(
    items: Sequence[Any],
    params: Params,
    tokenizers: tuple[TextTokenizer, TextTokenizer],
    indices: Sequence[int],
) -> tuple[list[Any], list[tuple[bool, bool]]]:
    """Cut the texts of every pair; return the items, and of each whether its texts were cut.

    ``tokenizers`` are those of the left and of the right texts. What is no pair stays as it is.
    Raises InvalidText, and TextTooLong for a text that is too long to be read.
    """
    cut_items, cut = list(items), [(False, False)] * len(items)
    if all_texts(items):
        return cut_items, cut
    pairs = [i for i, item in enumerate(items) if isinstance(item, tuple)]
    for i in pairs:
        check_item(items[i], indices[i], None)
    for side, budget in enumerate((params.max_query_length, params.max_document_length)):
        if budget is None:
            continue
        first = {items[i][side]: indices[i] for i in reversed(pairs)}  # a query stands in many
        shorter = _shortened(first, budget, tokenizers[side])
        for i in pairs:
            text = shorter[items[i][side]]
            was_cut = text != items[i][side]
            left, right = cut_items[i]
            cut_items[i] = (left, text) if side else (text, right)
            cut[i] = (cut[i][0], was_cut) if side else (was_cut, cut[i][1])
    return cut_items, cut


def readable(
    text: str, limit: int, tokenizer: TextTokenizer, index: int, *, keep_end: bool = False
) -> str:
    """Return a text, or of one far beyond ``limit`` tokens an excerpt of more than those.

    Raises TextTooLong for a text that is too long to be read, and of which no excerpt will do.
    """
    if not is_long(text, limit):
        return text
    (found,) = excerpts([text], limit, tokenizer.count, keep_end=keep_end)
    if found is not None:
        return found[0]
    if len(text) > most_chars(limit):
        raise TextTooLong(
            f"item {index} has {len(text)} characters; of a text whose tokens are this long, "
            f"{limit} tokens allow {most_chars(limit)}: shorten it or split it",
            index=index,
        )
    return text


def _shortened(texts: Mapping[str, int], budget: int, tokenizer: TextTokenizer) -> dict[str, str]:
    """Return the first ``budget`` tokens of each text; ``texts`` maps them to their items."""
    found: dict[str, str] = {}
    names = list(texts)
    for run in (names[i : i + _TEXTS] for i in range(0, len(names), _TEXTS)):
        parts = [readable(text, budget, tokenizer, texts[text]) for text in run]
        for text, shown, places in zip(run, parts, tokenizer.places(parts), strict=True):
            fits = len(places) <= budget
            found[text] = text if fits else part(shown, places, budget, keep_end=False)
    return found


def part(text: str, places: npt.NDArray[np.int64], keep: int, *, keep_end: bool) -> str:
    """Return the ``keep`` first (last) tokens of a text, whose tokens lie at ``places`` [n, 2]."""
    if keep <= 0:
        return ""
    if keep_end:
        return text[int(places[-keep:, 0].min()) :]
    # A first token may be no more than the space that a tokenizer puts before a text.
    return text[: max(1, int(places[:keep, 1].max()))]
