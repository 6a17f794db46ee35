"""Text, pair or ids -> token ids, by the artifact's ``tokenizer.json``.

Owns validation of what a caller passes and truncation. Knows nothing about tasks or graphs.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer

from poolc.errors import ArtifactCorrupt, InvalidOption, InvalidText, TextTooLong
from poolc.runtime.request import Item, TokenSequence


@dataclass(frozen=True, slots=True)
class Limits:
    """What a model accepts: tokens a sequence, and ids below ``vocab_size``."""

    max_length: int
    vocab_size: int
    has_type_ids: bool
    truncation_side: str = "right"  # which end is cut off


class TextTokenizer:
    """Thread-safe tokenising of validated items."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.limits = limits
        self._path = path
        self._strict = _load(path)
        # Truncation is state of a tokenizer: a second one, under a lock, leaves the first alone.
        self._truncating: Tokenizer | None = None
        self._lock = threading.Lock()

    def encode(
        self,
        items: Sequence[Item],
        *,
        prefix: str = "",
        truncate: bool = False,
        max_length: int | None = None,
        add_special_tokens: bool = True,
        indices: Sequence[int] | None = None,
    ) -> list[TokenSequence]:
        """Tokenise ``items`` in order; ``prefix`` is put before every text (not before ids).

        Raises InvalidText or TextTooLong with the item's index (its entry in ``indices``, else its
        position) and InvalidOption for a ``max_length`` that the model does not have.
        """
        limit = self._limit(max_length)
        indices = range(len(items)) if indices is None else indices
        texts: list[str | tuple[str, str]] = []
        for item, index in zip(items, indices, strict=True):
            checked = _checked(item, index, self.limits.vocab_size)
            if checked is not None:
                texts.append(_prefixed(checked, prefix))
        encodings = iter(self._encode_texts(texts, limit if truncate else None, add_special_tokens))
        sequences = []
        for item, index in zip(items, indices, strict=True):
            if _is_text(item):
                sequence = self._from_encoding(next(encodings), limit if truncate else None)
            else:
                sequence = self._from_ids(item, limit if truncate else None)
            self._check_length(sequence, limit, index)
            sequences.append(sequence)
        return sequences

    def check(self, items: Sequence[Any]) -> None:
        """Raise InvalidText, naming the item, for anything that cannot be tokenised."""
        check_items(items, self.limits.vocab_size)

    def _limit(self, max_length: int | None) -> int:
        if max_length is None:
            return self.limits.max_length
        whole = isinstance(max_length, int) and not isinstance(max_length, bool)
        if not whole or not 1 <= max_length <= self.limits.max_length:
            raise InvalidOption(
                f"max_length is {max_length!r}; this model takes 1 to {self.limits.max_length}",
                param="max_length",
            )
        return max_length

    def _encode_texts(
        self, texts: list[str | tuple[str, str]], limit: int | None, special: bool
    ) -> list[Encoding]:
        if not texts:
            return []
        if limit is None:
            return self._strict.encode_batch(texts, add_special_tokens=special)
        with self._lock:
            if self._truncating is None:
                self._truncating = _load(self._path)
            tokenizer = self._truncating
            if special:
                _check_room(tokenizer, texts, limit)
            if tokenizer.truncation is None or tokenizer.truncation["max_length"] != limit:
                tokenizer.enable_truncation(limit, direction=self.limits.truncation_side)
            return tokenizer.encode_batch(texts, add_special_tokens=special)

    def _from_encoding(self, encoding: Encoding, limit: int | None) -> TokenSequence:
        ids = np.array(encoding.ids, np.int64)
        types = np.array(encoding.type_ids, np.int64) if self.limits.has_type_ids else None
        # ``overflowing`` builds objects for every window cut off: ask only where one can be.
        truncated = limit is not None and len(ids) >= limit and bool(encoding.overflowing)
        return TokenSequence(ids, types, truncated)

    def _from_ids(self, item: Any, limit: int | None) -> TokenSequence:
        ids = np.array(item, np.int64)
        limit = len(ids) if limit is None else limit
        cut = len(ids) > limit
        if cut:
            ids = ids[-limit:] if self.limits.truncation_side == "left" else ids[:limit]
        return TokenSequence(ids, np.zeros_like(ids) if self.limits.has_type_ids else None, cut)

    def _check_length(self, sequence: TokenSequence, limit: int, index: int) -> None:
        if len(sequence) > limit:
            raise TextTooLong(
                f"item {index} has {len(sequence)} tokens; the limit is {limit}: "
                "shorten it, split it, or ask for truncation (truncate=True)",
                index=index,
            )
        if not len(sequence):
            raise InvalidText(f"item {index} has no tokens", index=index)


def _load(path: Path) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception for a file it cannot read
        raise ArtifactCorrupt(f"{path.name} cannot be read: {error}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _check_room(tokenizer: Tokenizer, texts: Sequence[str | tuple[str, str]], limit: int) -> None:
    """Refuse a limit below the special tokens: the library would then not truncate at all."""
    forms = {isinstance(text, tuple) for text in texts}
    needed = max(tokenizer.num_special_tokens_to_add(is_pair) for is_pair in forms)
    if limit < needed:
        raise InvalidOption(
            f"max_length is {limit}, but the special tokens alone are {needed}", param="max_length"
        )


def _is_text(item: Any) -> bool:
    return isinstance(item, (str, tuple))


def check_items(items: Sequence[Any], vocab_size: int | None = None) -> None:
    """Raise InvalidText, naming the item, for anything that cannot be tokenised.

    Without ``vocab_size`` any whole number passes for a token id.
    """
    for index, item in enumerate(items):
        _checked(item, index, vocab_size)


def _checked(item: Any, index: int, vocab_size: int | None) -> str | tuple[str, str] | None:
    """Return a valid text or pair, None for token ids; raise InvalidText for anything else."""
    if isinstance(item, str):
        _check_text(item, index)
        return item
    if isinstance(item, tuple):
        if len(item) != 2 or not all(isinstance(part, str) for part in item):
            raise InvalidText(f"item {index}: a pair must be two strings", index=index)
        for part in item:
            _check_text(part, index)
        return item
    if isinstance(item, list) or (isinstance(item, np.ndarray) and item.ndim):
        _check_ids(item, index, vocab_size)
        return None
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
        valid = all(
            isinstance(value, (int, np.integer)) and not isinstance(value, bool) for value in item
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


def _prefixed(text: str | tuple[str, str], prefix: str) -> str | tuple[str, str]:
    if not prefix:
        return text
    return prefix + text if isinstance(text, str) else (prefix + text[0], text[1])
