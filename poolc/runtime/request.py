"""What one call asks for: items, parameters, and the tokens that micro-batches are cut from.

``tokenize.py`` fills it in, ``engine.py`` acts on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt

from poolc.errors import InvalidOption
from poolc.spec import Similarity, Task

Item = str | tuple[str, str] | Sequence[int]
"""A text, a pair of texts, or token ids that are used as they are (special tokens included)."""

Row = Mapping[str, npt.NDArray[np.float32]]
"""One sequence's outputs by name, without padding: ``pooled`` [dim], ``logits`` [labels], ..."""


@dataclass(frozen=True, slots=True)
class Params:
    """Everything a request may say. None means "as the model says"."""

    dimensions: int | None = None  # Matryoshka size
    normalize: bool | None = None
    prompt_name: str | None = None  # neither this nor prompt: the model's default prompt
    prompt: str | None = None  # "" = no prompt at all
    # Cut to the maximum length instead of TextTooLong. None: as the server says, or no.
    truncate: bool | None = None
    max_length: int | None = None  # tokens, special tokens included; lowers the model's maximum
    output_dtype: str = "float32"
    use_activation: bool | None = None  # probabilities or raw logits
    label: str | int | None = None  # which label a score is, where the model has several
    add_special_tokens: bool = True
    similarity: Similarity | None = None  # of a score that compares vectors
    truncation_side: str | None = None  # left | right: which end truncation cuts off
    chunk: bool | None = None  # embed long texts in windows and average them
    max_query_length: int | None = None  # tokens of the left text of a pair; more are cut off
    max_document_length: int | None = None  # tokens of the right text of a pair
    by_token: bool = False  # sparse weights by token of the text, not by id (BGE-M3)
    side: str | None = None  # query | document | plain, for models that tell them apart
    top_k: int | None = None  # weights of a sparse vector that are kept, the largest
    instruction: str | None = None  # what a reranker's template is given; "" = none at all
    template: str | None = None  # Jinja source used instead of the model's own
    aggregation: str | None = None  # of token labels: none | simple | first | average | max
    step_tag_id: int | None = None  # token whose positions are rewarded
    returned_token_ids: Sequence[int] | None = None  # columns of token logits that are returned

    def truncated_to(self, num_tokens: object, max_length: int) -> Params:
        """Return these with truncation as vLLM's ``truncate_prompt_tokens`` asks for it.

        -1 stands for ``max_length``, the model's maximum. Raises InvalidOption for what is neither
        that nor 1 to ``max_length`` tokens, special tokens included.
        """
        if isinstance(num_tokens, int) and not isinstance(num_tokens, bool):
            if num_tokens == -1:
                num_tokens = max_length
            if 1 <= num_tokens <= max_length:
                return replace(self, truncate=True, max_length=num_tokens)
        raise InvalidOption(
            f"truncate_prompt_tokens is {num_tokens!r}; allowed: 1 to {max_length} tokens, or -1 "
            "for as much as the model accepts",
            param="truncate_prompt_tokens",
        )


@dataclass(frozen=True, slots=True, eq=False)
class TokenSource:
    """The text behind a sequence's tokens, for results that point into it."""

    text: str  # as the caller wrote it
    offsets: npt.NDArray[np.int64]  # [len, 2], characters of ``text``
    special: npt.NDArray[np.bool_]  # [len], which tokens the tokenizer added


class Spelling(Protocol):
    """How a tokenizer writes tokens."""

    marks_subwords: bool  # whether a piece shows that it continues a word (WordPiece's ##)

    def piece(self, token: int) -> str:
        """Return the token as the vocabulary spells it."""

    def join(self, pieces: Sequence[str]) -> str:
        """Return the text that pieces make."""


@dataclass(slots=True, eq=False)
class TokenSequence:
    """One sequence as the graph sees it; ``len`` is its number of tokens. Never changed.

    Not frozen: one is made for every text, and would take five times as long to make.
    """

    ids: npt.NDArray[np.int64]  # [len]
    type_ids: npt.NDArray[np.int64] | None  # [len]; None: all 0, or a model without segments
    truncated: bool = False
    attended: npt.NDArray[np.bool_] | None = None  # [len], where the model looks; None: everywhere
    # [len], which tokens pooling counts and which rows of a token-level result are returned; None:
    # all of them. Padding never is.
    counted: npt.NDArray[np.bool_] | None = None
    route: str | None = None  # of a router: which route it takes; None: that of the request
    source: TokenSource | None = None  # where a request asks for spans

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_counted(self) -> int:
        """Tokens that pooling counts."""
        return len(self) if self.counted is None else int(self.counted.sum())


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A validated, tokenised request.

    An item is one of ``sequences``, or with ``windows`` [items + 1] those from ``windows[i]`` to
    ``windows[i + 1]``. ``pairs`` [n, 2]: which items a score compares.
    """

    task: Task
    params: Params
    sequences: list[TokenSequence]
    output_set: str
    pairs: npt.NDArray[np.int64] | None = field(default=None)
    windows: npt.NDArray[np.int64] | None = field(default=None)
    spelling: Spelling | None = None  # where a request asks for spans

    @property
    def items(self) -> list[list[TokenSequence]]:
        """The sequences of each item."""
        if self.windows is None:
            return [[sequence] for sequence in self.sequences]
        edges = self.windows.tolist()
        return [self.sequences[a:b] for a, b in pairwise(edges)]

    def item_of(self, place: int) -> int:
        """Return which of the caller's items a sequence is of; of a pair's text: which pair."""
        item = place
        if self.windows is not None:
            item = int(np.searchsorted(self.windows, place, side="right")) - 1
        if self.pairs is None:
            return item
        return int(np.flatnonzero((self.pairs == item).any(axis=1))[0])

    @property
    def truncated(self) -> npt.NDArray[np.bool_]:
        """Whether tokens of a result's text (of either text, for a pair) were cut off: [n]."""
        cut = np.array([any(s.truncated for s in item) for item in self.items], np.bool_)
        return cut if self.pairs is None else np.asarray(cut[self.pairs].any(axis=1))

    @property
    def lengths(self) -> list[int]:
        """Tokens of each sequence."""
        return [len(sequence) for sequence in self.sequences]

    @property
    def num_tokens(self) -> int:
        """Tokens of all sequences, padding excluded."""
        return sum(self.lengths)
