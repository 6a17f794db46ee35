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
            checked = _checked(item, index)
            if checked is not None:
                texts.append(_prefixed(checked, prefix))
        encodings = iter(self._encode_texts(texts, limit if truncate else None, add_special_tokens))
        sequences = []
        for item, index in zip(items, indices, strict=True):
            if _is_text(item):
                sequence = self._from_encoding(next(encodings), limit if truncate else None)
            else:
                sequence = self._from_ids(item, limit if truncate else None, index)
            self._check_length(sequence, limit, index)
            sequences.append(sequence)
        return sequences

    def _limit(self, max_length: int | None) -> int:
        if max_length is None:
            return self.limits.max_length
        if not 1 <= max_length <= self.limits.max_length:
            raise InvalidOption(
                f"max_length is {max_length}; this model takes 1 to {self.limits.max_length}",
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
            _set_truncation(self._truncating, limit)
            return self._truncating.encode_batch(texts, add_special_tokens=special)

    def _from_encoding(self, encoding: Encoding, limit: int | None) -> TokenSequence:
        ids = np.array(encoding.ids, np.int64)
        types = np.array(encoding.type_ids, np.int64) if self.limits.has_type_ids else None
        # ``overflowing`` builds objects for every window cut off: ask only where one can be.
        truncated = limit is not None and len(ids) >= limit and bool(encoding.overflowing)
        return TokenSequence(ids, types, truncated)

    def _from_ids(self, item: Any, limit: int | None, index: int) -> TokenSequence:
        ids = np.array(item, np.int64)
        if ids.min() < 0 or ids.max() >= self.limits.vocab_size:
            wrong = int(ids[(ids < 0) | (ids >= self.limits.vocab_size)][0])
            raise InvalidText(
                f"item {index}: token id {wrong} is outside the vocabulary "
                f"(0 to {self.limits.vocab_size - 1})",
                index=index,
            )
        cut = limit is not None and len(ids) > limit
        ids = ids[:limit] if cut else ids
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


def _set_truncation(tokenizer: Tokenizer, limit: int) -> None:
    current = tokenizer.truncation
    if current is not None and current["max_length"] == limit:
        return
    try:
        tokenizer.enable_truncation(limit)
    except Exception as error:  # bare Exception: the limit leaves no room beside special tokens
        raise InvalidOption(
            f"max_length is {limit}, which leaves no room beside the special tokens",
            param="max_length",
        ) from error


def _is_text(item: Any) -> bool:
    return isinstance(item, (str, tuple))


def check_items(items: Sequence[Any]) -> None:
    """Raise InvalidText, naming the item, for anything that cannot be tokenised."""
    for index, item in enumerate(items):
        _checked(item, index)


def _checked(item: Any, index: int) -> str | tuple[str, str] | None:
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
    if isinstance(item, (list, np.ndarray)):
        _check_ids(item, index)
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


def _check_ids(item: Any, index: int) -> None:
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


def _prefixed(text: str | tuple[str, str], prefix: str) -> str | tuple[str, str]:
    if not prefix:
        return text
    return prefix + text if isinstance(text, str) else (prefix + text[0], text[1])
