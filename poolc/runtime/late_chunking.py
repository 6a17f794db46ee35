"""Late chunking: texts that follow each other are read as one, and each gets a vector of its own.

Every token sees all texts; the mean over the tokens of a text is its vector (Günther et al., "Late
Chunking", arXiv:2409.04701, algorithm 1). What belongs to no text (special tokens, a prompt that
pooling counts) belongs to the nearest one, so that a single text has its ordinary vector. Pure
functions: they run no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from poolc.errors import InvalidOption, InvalidText
from poolc.runtime.heads.embeddings import embeddings, pooled_row
from poolc.runtime.outputs import Float32
from poolc.runtime.request import Item, Params
from poolc.runtime.spelling import Piece
from poolc.spec import Kind, ModelSpec, PoolingType

_SEPARATOR = " "


@dataclass(frozen=True, slots=True)
class Joined:
    """Texts one after the other, where each begins, and how long the prompt before them is."""

    text: str
    starts: tuple[int, ...]  # characters
    prompt_chars: int


def check_late_chunking(spec: ModelSpec) -> None:
    """Raise InvalidOption for a model whose vectors are not the means of its tokens' states."""
    reason = None
    if spec.kind is not Kind.EMBEDDING:
        reason = f"it is of kind {spec.kind}"
    elif spec.pooling != (PoolingType.MEAN,):
        reason = f"it pools by {', '.join(spec.pooling) or 'nothing'}"
    elif spec.layers or spec.token_layers:
        reason = "its vectors pass through more layers than its tokens"
    elif spec.router is not None:
        reason = "it has a route a side"
    if reason is not None:
        raise InvalidOption(
            "late_chunking averages the token states of each text, which is not what this model's "
            f"vectors are ({reason}): send the texts without it",
            param="late_chunking",
        )


def joined(texts: Sequence[Item], prompt: str = "") -> Joined:
    """Put texts after ``prompt`` and after each other, parted by white space.

    Raises InvalidText for an item that is not a text, or has nothing in it.
    """
    parts, starts, length = [prompt], [], len(prompt)
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidText(f"item {index}: late_chunking joins texts, not token ids",
                              index=index)  # fmt: skip
        if not text.strip():
            raise InvalidText(f"item {index} is empty: late_chunking has nothing to average",
                              index=index)  # fmt: skip
        apart = not parts[-1] or parts[-1][-1].isspace() or text[0].isspace()
        between = "" if apart or index == 0 else _SEPARATOR
        starts.append(length + len(between))
        parts += [between, text]
        length = starts[-1] + len(text)
    return Joined("".join(parts), tuple(starts), len(prompt))


def parted(pieces: Sequence[Piece], count: int, side: str) -> tuple[list[Piece], list[Piece]]:
    """Return the ``count`` tokens of a text that truncation left, and those that it cut off.

    Special tokens all stay.
    """
    if count >= len(pieces):
        return list(pieces), []
    head = next((i for i, piece in enumerate(pieces) if not piece.special), len(pieces))
    tail = next((i for i, piece in enumerate(reversed(pieces)) if not piece.special), 0)
    body = list(pieces[head : len(pieces) - tail])
    room = max(count - head - tail, 0)
    start = len(body) - room if side == "left" else 0
    left, cut = body[start : start + room], [*body[:start], *body[start + room :]]
    return [*pieces[:head], *left, *pieces[len(pieces) - tail :]], cut


def truncated(texts: Joined, cut: Sequence[Piece]) -> npt.NDArray[np.bool_]:
    """Return of which texts tokens were ``cut`` off, [texts]; those of the prompt are none's."""
    owners = _text_of(texts, cut)
    found = np.zeros(len(texts.starts), np.bool_)
    found[owners[owners >= 0]] = True
    return found


def chunk_vectors(
    spec: ModelSpec, params: Params, texts: Joined, pieces: Sequence[Piece], states: Float32
) -> npt.NDArray[Any]:
    """Return one vector a text, [texts, dim], from the states of all tokens, [tokens, hidden].

    Raises InvalidText for a text of which no token was left.
    """
    owners = _owners(spec, texts, pieces)
    rows = []
    for index in range(len(texts.starts)):
        own = states[owners == index]
        if not len(own):
            raise InvalidText(
                f"item {index} lies wholly beyond the {len(pieces)} tokens that were read: send "
                "fewer texts, or without late_chunking",
                index=index,
            )
        rows.append(pooled_row(spec, own.mean(axis=0, dtype=np.float64)))
    return embeddings(spec, params, rows)


def _owners(spec: ModelSpec, texts: Joined, pieces: Sequence[Piece]) -> npt.NDArray[np.int64]:
    """Return which text each token belongs to; -1: none, as pooling does not count it."""
    special = np.array([piece.special for piece in pieces], np.bool_)
    body = np.flatnonzero(~special)
    owners = np.maximum(_text_of(texts, pieces), 0)  # of the prompt
    if len(body):
        owners[: body[0]] = owners[body[0]]
        owners[body[-1] + 1 :] = owners[body[-1]]
    owners[np.isin([piece.id for piece in pieces], spec.uncounted_ids)] = -1
    if texts.prompt_chars and not spec.include_prompt:  # nor what stands before it
        prompt = np.flatnonzero(~special & (_last_chars(pieces) < texts.prompt_chars))
        owners[: prompt[-1] + 1 if len(prompt) else 0] = -1
    return owners


def _text_of(texts: Joined, pieces: Sequence[Piece]) -> npt.NDArray[np.int64]:
    """Return the text that each token stands in; -1: in the prompt."""
    # A token that begins in the space between two texts is the second one's.
    starts = np.array(texts.starts, np.int64)
    return np.searchsorted(starts, _last_chars(pieces), side="right") - 1


def _last_chars(pieces: Sequence[Piece]) -> npt.NDArray[np.int64]:
    return np.array([piece.stop - 1 for piece in pieces], np.int64)
