"""Text, pair or ids -> token ids, by the artifact's ``tokenizer.json``.

Owns validation of what a caller passes, truncation, and how much is tokenised at once. Knows
nothing about tasks or graphs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer

from poolc.errors import ArtifactCorrupt, InvalidOption, InvalidText
from poolc.runtime.excerpts import (
    SLACK_TOKENS,
    excerpts,
    is_long,
    is_long_size,
    most_chars,
    too_long,
    too_many_characters,
)
from poolc.runtime.frames import Frame
from poolc.runtime.items import all_texts, check_items, is_text
from poolc.runtime.pieces import Tokens
from poolc.runtime.request import Item, TokenSequence, TokenSource
from poolc.runtime.spelling import TokenSpelling

# Items and characters that are in the library's hands at once: its results are many times the size
# of ours. Enough of them for all its threads.
_CHUNK_ITEMS = 1024
_CHUNK_CHARS = 1 << 18

Text = str | tuple[str, str]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a model accepts: tokens a sequence, and ids below ``vocab_size``."""

    max_length: int
    vocab_size: int
    has_type_ids: bool
    truncation_side: str = "right"  # which end is cut off
    chars_per_token: int | None = None  # a text is read to so many times its limit of tokens


class How(TypedDict, total=False):
    """How items are tokenised, besides truncation."""

    prefix: str  # put before every text, not before token ids
    max_length: int | None  # tokens; lowers the model's maximum
    add_special_tokens: bool
    indices: Sequence[int]  # what errors call the items, instead of their position
    truncation_side: str | None  # instead of the model's
    count_prefix: bool  # False: pooling does not count the tokens of ``prefix``
    sources: bool  # whether sequences keep their text and where in it each token is


@dataclass(frozen=True, slots=True)
class _Cut:
    """How many tokens a sequence may have, and what happens to more."""

    limit: int
    truncate: bool
    keep_end: bool


class TextTokenizer:
    """Thread-safe tokenising of validated items."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.limits = limits
        self._tokenizer = _load(path)
        self.spelling = TokenSpelling(self._tokenizer)
        added = self._tokenizer.get_added_tokens_decoder()
        frame = self.frame()
        self._types_are_zero = not any(
            (frame.head_types.any(), frame.tail_types.any(), frame.text_type)
        )
        self._special_ids = frozenset(i for i, token in added.items() if token.special)

    def encode(
        self, items: Sequence[Item], *, truncate: bool = False, **how: Unpack[How]
    ) -> list[TokenSequence]:
        """Tokenise ``items`` in order.

        Raises InvalidText or TextTooLong with the item's index and InvalidOption for a
        ``max_length`` that the model does not have. A text far beyond the limit is not read to its
        end (``excerpts.py``), and one of a million characters may be refused though truncated.
        """
        side = how.get("truncation_side") or self.limits.truncation_side
        cut = _Cut(self.limit(how.get("max_length")), truncate, side == "left")
        indices = how.get("indices", range(len(items)))
        check_items(items, self.limits.vocab_size, indices)
        sequences: list[TokenSequence] = []
        for run in runs(items):
            how["indices"] = indices[run]
            sequences += self._encode_run(items[run], cut, how)
        return sequences

    def token(self, token_id: int) -> str:
        """Return what the vocabulary calls a token; "" for an id that it has no token for."""
        name: str | None = self._tokenizer.id_to_token(token_id)
        return name or ""

    def places(self, texts: Sequence[str]) -> list[npt.NDArray[np.int64]]:
        """Return where in each text its tokens start and end: [n, 2], without special tokens."""
        encodings = self._batch(texts, special=False)
        return [np.array(encoding.offsets, np.int64).reshape(-1, 2) for encoding in encodings]

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, without special tokens."""
        return self._count(texts)

    def length(self, text: str, *, special: bool) -> int:
        """Return the number of tokens of a text, whatever the model accepts."""
        (encoding,) = self._batch([text], special=special)
        return len(encoding)

    def check(self, items: Sequence[Any]) -> None:
        """Raise InvalidText, naming the item, for anything that cannot be tokenised."""
        check_items(items, self.limits.vocab_size)

    def check_lengths(self, items: Sequence[Any], **how: Unpack[How]) -> None:
        """Raise what ``encode`` raises without truncation, reading only what could be too long.

        What it takes for short enough is so for every known tokenizer; where one makes more of a
        text, ``encode`` will say so.
        """
        indices = how.get("indices", range(len(items)))
        suspects = self.suspects(items, self.limit(how.get("max_length")), how)
        for start in range(0, len(suspects), _CHUNK_ITEMS):
            chosen = suspects[start : start + _CHUNK_ITEMS]
            how["indices"] = [indices[i] for i in chosen]
            self.encode([items[i] for i in chosen], **how)

    def suspects(self, items: Sequence[Any], limit: int, how: How) -> list[int]:
        """Return the positions of items that could have more than ``limit`` tokens."""
        special = how.get("add_special_tokens", True)
        room = {
            is_pair: limit - (self._tokenizer.num_special_tokens_to_add(is_pair) if special else 0)
            for is_pair in (False, True)
        }
        prefix = how.get("prefix", "")
        return [i for i, item in enumerate(items) if self._may_exceed(prefixed(item, prefix), room)]

    def tokens(self, texts: Sequence[str]) -> list[Tokens]:
        """Return ids and places in the text, without special tokens."""
        found = []
        for encoding in self._batch(texts, special=False):
            places = np.array(encoding.offsets, np.int64).reshape(-1, 2)
            found.append(Tokens(np.array(encoding.ids, np.int64), places[:, 0], places[:, 1]))
        return found

    def frame(self) -> Frame:
        """Return the special tokens that a whole text gets."""
        encoding = self._tokenizer.encode("a", add_special_tokens=True)
        ids, types = np.array(encoding.ids, np.int64), np.array(encoding.type_ids, np.int64)
        text = [i for i, side in enumerate(encoding.sequence_ids) if side is not None]
        first, last = (text[0], text[-1] + 1) if text else (len(ids), len(ids))
        segment = int(types[first]) if text else 0
        return Frame(ids[:first], ids[last:], types[:first], types[last:], segment)

    def without_prompt(self, sequence: TokenSequence, limit: int, how: How) -> TokenSequence:
        """Return a text's sequence with its prompt not counted, as Sentence Transformers does it.

        That is by the prompt's own length, whatever the text's first token made of its last one,
        and wherever truncation cut. Raises InvalidText where nothing is left to count.
        """
        prompt = how.get("prefix", "")
        if not prompt or how.get("count_prefix", True):
            return sequence
        special = how.get("add_special_tokens", True)
        (ids,) = self._batch([prompt], special=special, offsets=False)
        length = min(len(ids), limit)
        # Only one token behind it is taken off, if it is special.
        ends_special = length and ids.ids[-1] in self._special_ids
        counted = np.arange(len(sequence)) >= length - bool(ends_special)
        return replace(sequence, counted=counted)

    def _may_exceed(self, item: Any, room: dict[bool, int]) -> bool:
        """A text has no more tokens than bytes, once normalised, and one for a space before it."""
        if isinstance(item, str) and item.isascii():  # the usual case
            return len(item) > room[False] - 1
        if not is_text(item):
            return len(item) > room[False]
        parts = (item,) if isinstance(item, str) else item
        left = room[isinstance(item, tuple)] - len(parts)
        # Normalising (NFKC) makes up to 18 characters of one, but leaves ASCII as long as it was.
        if sum(map(len, parts)) > left:
            return True
        return sum(map(self._normalized_bytes, parts)) > left

    def _normalized_bytes(self, text: str) -> int:
        if text.isascii():
            return len(text)
        normalizer = self._tokenizer.normalizer
        return len((text if normalizer is None else normalizer.normalize_str(text)).encode())

    def limit(self, max_length: int | None) -> int:
        """Return how many tokens a sequence may have. Raises InvalidOption."""
        if max_length is None:
            return self.limits.max_length
        whole = isinstance(max_length, int) and not isinstance(max_length, bool)
        if not whole or not 1 <= max_length <= self.limits.max_length:
            raise InvalidOption(
                f"max_length is {max_length!r}; this model takes 1 to {self.limits.max_length}",
                param="max_length",
            )
        return max_length

    def _encode_run(self, items: Sequence[Any], cut: _Cut, how: How) -> list[TokenSequence]:
        indices, prefix = how["indices"], how.get("prefix", "")
        plain = all_texts(items)
        for item, index in () if plain else zip(items, indices, strict=True):
            if not (cut.truncate or is_text(item)) and len(item) > cut.limit:
                raise too_long(f"{len(item)}", cut.limit, index)
        texts, places = _texts_of(items, indices, prefix)
        texts = self._readable(texts, places, cut)
        special = how.get("add_special_tokens", True)
        if special and cut.truncate:
            _check_room(self._tokenizer, texts, cut.limit)
        encoded = self._batch(texts, special=special, offsets=bool(how.get("sources")))
        sequences = self._from_encodings(encoded, texts, cut, special)
        if plain and not prefix and not how.get("sources"):
            # Nothing is done to one sequence by itself; the loop below is half of the time here.
            found = list(sequences)
            lengths = [len(sequence.ids) for sequence in found]
            if min(lengths) and max(lengths) <= cut.limit:
                return found
            sequences = iter(found)
        made = iter(zip(sequences, encoded, texts, strict=True))
        return [
            checked(self._sequence(item, index, made, cut, how), index)
            for item, index in zip(items, indices, strict=True)
        ]

    def _sequence(
        self,
        item: Any,
        index: int,
        made: Iterator[tuple[TokenSequence, Encoding, Text]],
        cut: _Cut,
        how: How,
    ) -> TokenSequence:
        """Return the sequence of one item; ``made`` has those of the texts, in order."""
        if is_text(item):
            sequence, encoding, read = next(made)
            if how.get("prefix"):
                sequence = self.without_prompt(sequence, cut.limit, how)
            if how.get("sources"):
                source = _source(encoding, cut, (item, read), index)
                sequence = replace(sequence, source=source)
        elif how.get("sources"):
            raise InvalidText(
                f"item {index} is token ids; spans are found in texts: pass the text, or "
                "aggregation='none'",
                index=index,
            )
        else:
            sequence = self._from_ids(item, cut)
        if len(sequence) > cut.limit:
            raise too_long(f"{len(sequence)}", cut.limit, index)
        return sequence

    def _readable(self, texts: list[Text], indices: Sequence[int], cut: _Cut) -> list[Text]:
        """Return texts that can be tokenised whole, to the same result after truncation.

        Raises TextTooLong for one that is far too long, where it is not to be truncated.
        """
        if self.limits.chars_per_token is not None:
            texts = self._first_chars(texts, indices, cut)
        parts = map(len, texts) if all_texts(texts) else map(_longest_part, texts)
        longest = max(parts, default=0)
        if not is_long_size(longest, cut.limit):
            return texts
        for place, found in self._excerpts(texts, cut, indices).items():
            if not cut.truncate:
                least = max(num_tokens for _, num_tokens in found.values()) - SLACK_TOKENS
                raise too_long(f"at least {least}", cut.limit, indices[place])
            texts[place] = self._cut(texts[place], found, cut.limit, indices[place])
        return texts

    def _first_chars(self, texts: list[Text], indices: Sequence[int], cut: _Cut) -> list[Text]:
        """Cut texts to the characters that the model's own library reads, or refuse longer ones."""
        most = cut.limit * (self.limits.chars_per_token or 1)
        if not cut.truncate:
            for text, index in zip(texts, indices, strict=True):
                longest = max(map(len, _parts(text)))
                if longest > most:
                    raise too_many_characters(longest, cut.limit, index, most)
        return [
            text[:most] if isinstance(text, str) else (text[0][:most], text[1][:most])
            for text in texts
        ]

    def _excerpts(
        self, texts: Sequence[Text], cut: _Cut, indices: Sequence[int]
    ) -> dict[int, dict[int, tuple[str, int]]]:
        """Return, by position and side, excerpts of the texts that are far beyond the limit.

        Raises TextTooLong for a text that is too long to be read, and of which no excerpt will do.
        """
        limit = cut.limit
        places = [
            (i, side)
            for i, text in enumerate(texts)
            for side, part in enumerate(_parts(text))
            if is_long(part, limit)
        ]
        long = [_parts(texts[i])[side] for i, side in places]
        found: dict[int, dict[int, tuple[str, int]]] = {}
        for (i, side), text, excerpt in zip(
            places, long, excerpts(long, limit, self._count, keep_end=cut.keep_end), strict=True
        ):
            if excerpt is not None:
                found.setdefault(i, {})[side] = excerpt
            elif len(text) > most_chars(limit):
                raise too_many_characters(len(text), limit, indices[i])
        return found

    def _count(self, texts: Sequence[str]) -> list[int]:
        return [len(encoding) for encoding in self._batch(texts, special=False, offsets=False)]

    def _batch(
        self, texts: Sequence[Text], *, special: bool, offsets: bool = True
    ) -> list[Encoding]:
        """Tokenise; without ``offsets``, which take a fifth of the time, they are all 0."""
        if not texts:
            return []
        encode = self._tokenizer.encode_batch if offsets else self._tokenizer.encode_batch_fast
        return encode(texts, add_special_tokens=special)

    def _cut(self, text: Text, found: dict[int, tuple[str, int]], limit: int, index: int) -> Text:
        if isinstance(text, str):
            return found[0][0]
        if len(found) == 1:
            ((side, (excerpt, _)),) = found.items()
            if self._count([text[1 - side]])[0] <= limit:
                return (excerpt, text[1]) if side == 0 else (text[0], excerpt)
        # Both texts are cut, to halves, and the longer one keeps the odd token: which one that is,
        # excerpts do not tell.
        longest = max(map(len, text))
        if longest > most_chars(limit):
            raise too_many_characters(longest, limit, index)
        return text

    def _from_encodings(
        self, encodings: Sequence[Encoding], texts: Sequence[Text], cut: _Cut, special: bool
    ) -> Iterator[TokenSequence]:
        """Yield the sequence of each text; those of one call are views of one array."""
        lists = [encoding.ids for encoding in encodings]
        ids = _joined(lists)
        types: npt.NDArray[np.int64] | None = None
        if self.limits.has_type_ids:
            # Reading them takes as long as reading the ids, and mostly they are all 0.
            zero = special and not any(isinstance(text, tuple) for text in texts)
            zero = zero and self._types_are_zero
            types = None if zero else _joined([e.type_ids for e in encodings])
        start = 0
        for encoding, numbers in zip(encodings, lists, strict=True):
            stop = start + len(numbers)
            own, kinds = ids[start:stop], None if types is None else types[start:stop]
            start = stop
            if not cut.truncate or len(numbers) <= cut.limit:
                yield TokenSequence(own, kinds)
                continue
            kept = _kept(encoding, cut)
            yield TokenSequence(own[kept], None if kinds is None else kinds[kept], truncated=True)

    def _from_ids(self, item: Any, cut: _Cut) -> TokenSequence:
        too_many = len(item) > cut.limit
        if too_many:
            item = item[-cut.limit :] if cut.keep_end else item[: cut.limit]
        ids = np.array(item, np.int64)
        return TokenSequence(ids, None, too_many)


def _joined(lists: Sequence[list[int]]) -> npt.NDArray[np.int64]:
    count = sum(map(len, lists))
    return np.fromiter(chain.from_iterable(lists), np.int64, count)


def _source(encoding: Encoding, cut: _Cut, texts: tuple[Text, Text], index: int) -> TokenSource:
    item, read = texts  # as the caller wrote it, and what was read of it
    if not isinstance(item, str):
        raise InvalidText(
            f"item {index} is a pair; spans are found in single texts: pass one, or "
            "aggregation='none'",
            index=index,
        )
    too_long = cut.truncate and len(encoding.ids) > cut.limit
    kept = _kept(encoding, cut) if too_long else np.arange(len(encoding.ids))
    special = np.array(encoding.special_tokens_mask, np.bool_)[kept]
    offsets = np.array(encoding.offsets, np.int64).reshape(-1, 2)[kept]
    if cut.keep_end:  # an excerpt is then the end of the text
        offsets[~special] += len(item) - len(read)
    return TokenSource(item, offsets, special)


def _kept(encoding: Encoding, cut: _Cut) -> npt.NDArray[np.int64]:
    """Return which tokens truncation keeps, as the library's ``longest_first`` does.

    The library's own builds an object for every piece that it cuts off, and of two texts for
    every pair of pieces: gigabytes for a long pair.
    """
    sides = np.array([-1 if side is None else side for side in encoding.sequence_ids])
    kept = [np.flatnonzero(sides == -1)]  # the special tokens
    places = [np.flatnonzero(sides == side) for side in (0, 1)]
    room = cut.limit - len(kept[0])
    first, second = map(len, places)
    shorter = min(first, second, room // 2)
    shares = (room - shorter, shorter) if first > second else (shorter, room - shorter)
    for place, share in zip(places, shares, strict=True):
        kept.append(place[len(place) - share :] if cut.keep_end else place[:share])
    return np.sort(np.concatenate(kept))


def runs(items: Sequence[Any]) -> Iterator[slice]:
    """Cut items into runs of bounded size; a larger one is a run of its own."""
    start = size = 0
    for i, item in enumerate(items):
        item_size = sum(map(len, item)) if isinstance(item, tuple) else len(item)
        if i > start and (i - start == _CHUNK_ITEMS or size + item_size > _CHUNK_CHARS):
            yield slice(start, i)
            start, size = i, 0
        size += item_size
    if len(items):
        yield slice(start, len(items))


def _texts_of(
    items: Sequence[Any], indices: Sequence[int], prefix: str
) -> tuple[list[Text], Sequence[int]]:
    """Return the texts among items, behind their prefix, and which items they are."""
    if not prefix and all_texts(items):
        return list(items), indices
    texts = [prefixed(item, prefix) for item in items if is_text(item)]
    return texts, [i for item, i in zip(items, indices, strict=True) if is_text(item)]


def _longest_part(text: Text) -> int:
    return len(text) if text.__class__ is str else max(map(len, text))


def _parts(text: Text) -> tuple[str, ...]:
    return (text,) if isinstance(text, str) else text


def checked(sequence: TokenSequence, index: int) -> TokenSequence:
    """Return ``sequence``. Raises InvalidText for one of which nothing would be pooled."""
    if not len(sequence):
        raise InvalidText(f"item {index} has no tokens", index=index)
    if sequence.counted is not None and not sequence.num_counted:
        raise InvalidText(
            f"item {index}: the prompt takes all of its {len(sequence)} tokens, and this model's "
            "pooling does not count a prompt: shorten the prompt or raise max_length",
            index=index,
        )
    return sequence


def _load(path: Path) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception for a file it cannot read
        raise ArtifactCorrupt(f"{path.name} cannot be read: {error}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _check_room(tokenizer: Tokenizer, texts: Sequence[str | tuple[str, str]], limit: int) -> None:
    """Refuse a limit below the special tokens, which are never cut off."""
    forms = {isinstance(text, tuple) for text in texts}
    needed = max((tokenizer.num_special_tokens_to_add(form) for form in forms), default=0)
    if limit < needed:
        raise InvalidOption(
            f"max_length is {limit}, but the special tokens alone are {needed}", param="max_length"
        )


def prefixed(item: Any, prefix: str) -> Any:
    """Put ``prefix`` before a text or the left of a pair; token ids stay as they are."""
    if not prefix or not is_text(item):
        return item
    return prefix + item if isinstance(item, str) else (prefix + item[0], item[1])
