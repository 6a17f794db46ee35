"""Result types, and the arithmetic after the graph: truncate, normalise, quantise, compare.

Knows nothing about tokenizers, sessions or requests. Arrays are NumPy, rows are texts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from poolc.errors import InvalidOption
from poolc.spec import Activation, Similarity

Float32 = npt.NDArray[np.float32]
OutputDtype = Literal["float32", "float16", "int8", "uint8", "binary", "ubinary"]
OUTPUT_DTYPES: tuple[str, ...] = get_args(OutputDtype)


@dataclass(frozen=True, slots=True, eq=False)
class Ragged:
    """Rows of different length in two arrays, laid out as an Arrow list.

    ``values`` is [total, ...]; row ``i`` is ``values[offsets[i]:offsets[i + 1]]``; ``offsets`` is
    int64 [n + 1].
    """

    values: npt.NDArray[Any]
    offsets: npt.NDArray[np.int64]

    @classmethod
    def from_rows(cls, rows: list[npt.NDArray[Any]]) -> Ragged:
        """Concatenate rows (at least one) whose trailing dimensions agree."""
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        return cls(np.concatenate(rows, axis=0), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> npt.NDArray[Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        index %= len(self)
        row: npt.NDArray[Any] = self.values[self.offsets[index] : self.offsets[index + 1]]
        return row

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        return (self[i] for i in range(len(self)))


@dataclass(frozen=True, slots=True, eq=False)
class Classification:
    """``labels[i]`` is the best label of text ``i`` (None when the model names none);
    ``probs`` is float32 [n, num_labels]; ``names`` are the labels by column."""

    labels: list[str | None]
    probs: Float32
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class Span:
    """A labelled stretch of a text, as transformers' token-classification pipeline gives it.

    ``word`` is how the tokenizer spells it; ``text[start:end]`` is what the caller wrote.
    """

    entity_group: str
    score: float
    word: str
    start: int  # characters
    end: int


def activate(logits: Float32, kind: Activation) -> Float32:
    """Apply an activation to [..., labels]; softmax is over the last axis.

    Raises InvalidOption for one that only graphs have.
    """
    if kind is Activation.IDENTITY:
        return logits
    if kind is Activation.SOFTMAX:
        grown = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return np.asarray(grown / grown.sum(axis=-1, keepdims=True), np.float32)
    if kind is Activation.SIGMOID:  # of either sign without overflow
        halved = np.exp(-np.abs(logits))
        return np.asarray(np.where(logits >= 0, 1, halved) / (1 + halved), np.float32)
    if kind is Activation.TANH:
        return np.asarray(np.tanh(logits), np.float32)
    if kind is Activation.RELU:
        return np.maximum(logits, np.float32(0))
    raise InvalidOption(
        f"activation is {kind}; logits of tokens have: identity, sigmoid, softmax, tanh, relu",
        param="activation",
    )


def l2_normalize(rows: Float32) -> Float32:
    """Scale each vector of [..., dim] to unit length (eps 1e-12, as torch's normalize)."""
    norm = np.sqrt(np.einsum("...i,...i->...", rows, rows))[..., None]
    return np.asarray(rows / np.maximum(norm, np.float32(1e-12)), dtype=np.float32)


def check_dtype(dtype: str, dimensions: int | None = None) -> None:
    """Raise InvalidOption for another dtype, or ``dimensions`` that do not pack into bytes."""
    if dtype not in OUTPUT_DTYPES:
        raise InvalidOption(
            f"output_dtype is {dtype!r}; allowed: {', '.join(OUTPUT_DTYPES)}", param="output_dtype"
        )
    if dtype in ("binary", "ubinary") and dimensions is not None and dimensions % 8:
        raise InvalidOption(
            f"output_dtype {dtype!r} packs 8 numbers a byte; {dimensions} dimensions do not "
            "divide by 8: ask for other dimensions or another output_dtype",
            param="output_dtype",
        )


def convert_dtype(rows: Float32, dtype: str) -> npt.NDArray[Any]:
    """Convert unit vectors [..., dim] to an output dtype.

    int8 is round(127 x); uint8 is that plus 128; ``ubinary`` packs x >= 0, most significant bit
    first (dim must divide by 8), ``binary`` is the same minus 128 as int8, as in Sentence
    Transformers' ``quantize_embeddings``. Raises InvalidOption as ``check_dtype`` does.
    """
    check_dtype(dtype, rows.shape[-1])
    if dtype == "float32":
        return rows
    if dtype == "float16":
        return rows.astype(np.float16)
    if dtype in ("int8", "uint8"):
        scaled: Float32 = np.clip(np.rint(rows * np.float32(127.0)), -128, 127)
        return scaled.astype(np.int8) if dtype == "int8" else (scaled + 128).astype(np.uint8)
    packed = np.packbits(rows >= 0, axis=-1)
    return packed if dtype == "ubinary" else (packed.astype(np.int16) - 128).astype(np.int8)


def similarity(left: Float32, right: Float32, kind: Similarity) -> Float32:
    """Compare row by row: [n, dim] with [n, dim] (or one row with n) -> float32 [n].

    Higher is more alike; distances are negated, as in Sentence Transformers' ``similarity``.
    """
    if kind is Similarity.COSINE:
        left, right, kind = l2_normalize(left), l2_normalize(right), Similarity.DOT
    if kind is Similarity.DOT:
        scores = np.einsum("...i,...i->...", left, right)
    elif kind is Similarity.EUCLIDEAN:
        scores = -np.sqrt(np.square(left - right).sum(axis=-1))
    else:
        scores = -np.abs(left - right).sum(axis=-1)
    return np.asarray(scores, dtype=np.float32)
