"""How much of a very long text has to be read, and what is said of one that is too long.

A tokenizer takes some 150 bytes of memory a character. Read whole, one text of a few megabytes
would take hundreds of them, only to be refused or cut to a few hundred tokens. Its beginning (its
end, where the beginning is what truncation drops) says as much, once it has enough tokens.

Knows nothing about tasks, files or requests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from poolc.errors import TextTooLong

Count = Callable[[Sequence[str]], list[int]]
"""Texts -> the number of tokens of each, without special tokens."""

# The first excerpt is as long as this says; prose has 3 to 5 characters a token.
_CHARS_PER_TOKEN = 8
# Tokens this far from where an excerpt was cut are those of the whole text. Text is split into
# words first, so the cut changes the word that it falls into: in WordPiece at most a hundred tokens
# (longer words are one unknown token), in BPE and Unigram, whose choices reach a few tokens, fewer.
SLACK_TOKENS = 1024
_GROWTH = 4
# Spaces, or letters without a space, can be any number of characters a token: a text of more than
# this, and of no more tokens than the model takes, is refused rather than read.
_MOST_CHARS = 1 << 20


def most_chars(limit: int) -> int:
    """Return how many characters of one text are read at most, for ``limit`` tokens."""
    return max(_MOST_CHARS, _GROWTH * _first_size(limit))


def is_long(text: str, limit: int) -> bool:
    """Return whether reading an excerpt, and then keeping it, is less work than reading it all."""
    return is_long_size(len(text), limit)


def is_long_size(num_chars: int, limit: int) -> bool:
    """``is_long`` of a text of so many characters."""
    return num_chars > 2 * _first_size(limit)


def excerpts(
    texts: Sequence[str], limit: int, count: Count, *, keep_end: bool
) -> list[tuple[str, int] | None]:
    """Return, of each text, an excerpt of more than ``limit`` + ``SLACK_TOKENS`` tokens and their
    number; None where no excerpt of at most ``most_chars`` has so many."""
    found: list[tuple[str, int] | None] = [None] * len(texts)
    pending = list(range(len(texts)))
    size = _first_size(limit)
    while pending and size <= most_chars(limit):
        parts = {i: _part(texts[i], size, keep_end) for i in pending}
        parts = {i: part for i, part in parts.items() if len(part) <= most_chars(limit)}
        for i, num_tokens in zip(parts, count(list(parts.values())), strict=True):
            if num_tokens > limit + SLACK_TOKENS:
                found[i] = parts[i], num_tokens
        size *= _GROWTH
        pending = [i for i in parts if found[i] is None and size < len(texts[i])]
    return found


def _first_size(limit: int) -> int:
    return (limit + SLACK_TOKENS) * _CHARS_PER_TOKEN


def _part(text: str, size: int, keep_end: bool) -> str:
    if not keep_end:
        return text[:size]
    # Long numbers are grouped from their first digit, so an end has to begin where a word does.
    return text[max(0, text.rfind(" ", 0, max(0, len(text) - size))) :]


def too_long(tokens: str, limit: int, index: int) -> TextTooLong:
    """Return the error for an item of more tokens than ``limit``."""
    return TextTooLong(
        f"item {index} has {tokens} tokens; the limit is {limit}: "
        "shorten it, split it, or ask for truncation (truncate=True)",
        index=index,
    )


def too_many_characters(count: int, limit: int, index: int, most: int | None = None) -> TextTooLong:
    """Return the error for a text of more characters than are read.

    ``most``: what the model reads, whatever its tokens; None: what can be read at all.
    """
    if most is not None:
        return TextTooLong(
            f"item {index} has {count} characters; of a text this model reads the first {most} "
            f"and {limit} tokens: shorten it, split it, or ask for truncation (truncate=True)",
            index=index,
        )
    return TextTooLong(
        f"item {index} has {count} characters; of a text whose tokens are this long, a limit of "
        f"{limit} tokens allows {most_chars(limit)}: shorten it or split it",
        index=index,
    )
