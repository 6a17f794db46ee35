"""Which items a round measures: workloads of a model, with the tokens that each one costs.

``short`` is all queries; ``mixed`` all queries and the first 2,000 documents; ``long`` documents of
400 tokens or more; ``fixed-N`` documents of exactly N tokens. short and mixed are dealt like cards,
by length, into as many parts as there are rounds, so that all of them are measured once and every
round is the same mixture. Large models take one fixed slice of 20,000 tokens, dealt into five parts
that alternate between systems: a slow spell of the machine is longer than one of them.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from benchmarks.models import Model
from benchmarks.workload import SEED, documents, queries

MIXED_DOCUMENTS = 2000
MIXED_QUERIES = 2000
LONG_TOKENS = 400
SLICE_TOKENS = 20_000
SLICE_PARTS = 5
SMALL_SLICE_TOKENS = 10_000  # of models that are measured on whole workloads besides
TUNING_TOKENS = 4_096
TUNING_ITEMS = 128  # a batch of the largest size that is tried
DOCUMENTS_A_QUERY = 8  # of a cross-encoder


@dataclass(frozen=True, slots=True)
class Part:
    """Items and the tokens of each, cut at the model's limit, special tokens included."""

    items: tuple[Any, ...]
    lengths: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Return the tokens of all items."""
        return sum(self.lengths)

    def head(self, tokens: int) -> Part:
        """Return the first items, up to so many tokens but at least one."""
        ends = list(itertools.accumulate(self.lengths))
        count = max(1, sum(end <= tokens for end in ends))
        return Part(self.items[:count], self.lengths[:count])


@dataclass(frozen=True, slots=True)
class Workload:
    """A name and its parts; round k measures part k, again from the first where they end."""

    name: str
    parts: tuple[Part, ...]

    @property
    def tuning(self) -> Part:
        """Return what settings are tried on."""
        part = self.parts[0]
        if len(self.parts) == 1:
            return part.head(TUNING_TOKENS)
        return Part(part.items[:TUNING_ITEMS], part.lengths[:TUNING_ITEMS])

    @property
    def digest(self) -> str:
        """Return a hash of all items: results of other items are not these results."""
        content = json.dumps([part.items for part in self.parts])
        return hashlib.sha256(content.encode()).hexdigest()[:16]


class Counter:
    """Counts tokens as the model sees them."""

    def __init__(self, folder: Path, max_length: int) -> None:
        self.max_length = max_length
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def lengths(self, items: Iterable[Any]) -> list[int]:
        """Return the tokens of each text or pair, at most the model's limit."""
        made = self._tokenizer.encode_batch([tuple(i) if isinstance(i, list) else i for i in items])
        return [min(self.max_length, len(encoding.ids)) for encoding in made]

    def whole(self, text: str) -> int:
        """Return the tokens of a text that nothing cuts."""
        return len(self._tokenizer.encode(text).ids)

    def part(self, items: Iterable[Any]) -> Part:
        """Count items."""
        chosen = tuple(items)
        return Part(chosen, tuple(self.lengths(chosen)))

    def cut(self, text: str, tokens: int) -> str | None:
        """Return the beginning of ``text`` that is exactly so many tokens; None if none is."""
        encoding = self._tokenizer.encode(text)
        special = sum(encoding.special_tokens_mask)
        ends = [
            end
            for (_, end), is_special in zip(
                encoding.offsets, encoding.special_tokens_mask, strict=True
            )
            if not is_special
        ]
        if len(ends) < tokens - special:
            return None
        beginning = text[: ends[tokens - special - 1]]
        return beginning if len(self._tokenizer.encode(beginning).ids) == tokens else None


def workload(
    name: str, model: Model, counter: Counter, data: Path | None, rounds: int, texts: int | None
) -> Workload:
    """Build a workload; ``texts`` limits the items of all parts together, for a trial run."""
    items = list(itertools.islice(_items(name, model, counter, data), texts))
    if not items:
        raise SystemExit(f"no text for the workload {name}")
    if name in ("short", "mixed"):
        random.Random(SEED).shuffle(items)
        if not model.large:
            return Workload(name, deal(counter.part(items), rounds))
    if model.large:
        return Workload(name, deal(counter.part(items).head(SLICE_TOKENS), SLICE_PARTS))
    return Workload(name, (counter.part(items).head(SMALL_SLICE_TOKENS),))


def deal(part: Part, hands: int) -> tuple[Part, ...]:
    """Deal items by length into parts of the same mixture; each part keeps the given order."""
    order = sorted(range(len(part.items)), key=lambda i: (part.lengths[i], i))
    dealt = [sorted(order[hand::hands]) for hand in range(min(hands, len(order)))]
    return tuple(
        Part(tuple(part.items[i] for i in hand), tuple(part.lengths[i] for i in hand))
        for hand in dealt
    )


def names(model: Model) -> tuple[str, ...]:
    """Return the workloads of a model."""
    if model.task == "score":
        return ("mixed",)
    fixed = [f"fixed-{n}" for n in (128, 512) if n <= model.max_length]
    return ("mixed", *fixed) if model.large else ("short", "mixed", "long", *fixed)


def _items(name: str, model: Model, counter: Counter, data: Path | None) -> Iterator[Any]:
    if model.task == "score":
        yield from _pairs(data)
    elif name == "short":
        yield from itertools.islice(queries(data), MIXED_QUERIES)
    elif name == "mixed":
        yield from _alternate(
            itertools.islice(queries(data), MIXED_QUERIES),
            itertools.islice(documents(data), MIXED_DOCUMENTS),
        )
    elif name == "long":
        long = (text for text in documents(data) if counter.whole(text) >= LONG_TOKENS)
        yield from _up_to(SLICE_TOKENS, counter, long)
    else:
        tokens = int(name.removeprefix("fixed-"))
        cut = (counter.cut(text, tokens) for text in documents(data))
        yield from itertools.islice(filter(None, cut), max(1, SLICE_TOKENS // tokens))


def _pairs(data: Path | None) -> Iterator[list[str]]:
    passages = documents(data)
    for query in itertools.islice(queries(data), 100):
        for passage in itertools.islice(passages, DOCUMENTS_A_QUERY):
            yield [query, passage]


def _alternate(left: Iterator[str], right: Iterator[str]) -> Iterator[str]:
    for pair in itertools.zip_longest(left, right):
        yield from (text for text in pair if text is not None)


def _up_to(tokens: int, counter: Counter, texts: Iterator[str]) -> Iterator[str]:
    counted = 0
    for text in texts:
        yield text
        counted += counter.lengths([text])[0]
        if counted >= tokens:
            return
