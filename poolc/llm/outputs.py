"""vLLM's result objects: a request, and inside it what the task answers.

Vectors are lists of floats as in vLLM; ``PoolingOutput.data`` is a NumPy array.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")

_SHOWN = 6  # numbers of a vector that a repr prints


@dataclass(frozen=True, slots=True, eq=False)
class PoolingOutput:
    """The array of one prompt; its shape depends on the task."""

    data: npt.NDArray[Any]

    def __repr__(self) -> str:
        data = np.array2string(self.data, precision=4, threshold=4 * _SHOWN, separator=", ")
        return f"PoolingOutput(data={data}, shape={self.data.shape})"


@dataclass(frozen=True, slots=True)
class EmbeddingOutput:
    """One embedding vector."""

    embedding: list[float]

    @property
    def hidden_size(self) -> int:
        """The length of the vector."""
        return len(self.embedding)

    def __repr__(self) -> str:
        return (
            f"EmbeddingOutput(embedding={_short(self.embedding)}, hidden_size={self.hidden_size})"
        )


@dataclass(frozen=True, slots=True)
class ClassificationOutput:
    """One number a class, by label id: probabilities, or logits where those were asked for."""

    probs: list[float]

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.probs)

    def __repr__(self) -> str:
        return f"ClassificationOutput(probs={_short(self.probs)}, num_classes={self.num_classes})"


@dataclass(frozen=True, slots=True)
class ScoringOutput:
    """How well two texts fit."""

    score: float


@dataclass(frozen=True, slots=True)
class PoolingRequestOutput(Generic[T]):
    """The answer to one prompt (to one pair, for ``LLM.score``)."""

    request_id: str
    outputs: T
    prompt_token_ids: list[int]  # as the model saw them: after truncation, special tokens included
    finished: bool = True
    num_cached_tokens: int = 0
    truncated: bool = False  # whether tokens of the prompt (of the pair) were cut off


class EmbeddingRequestOutput(PoolingRequestOutput[EmbeddingOutput]):
    """The answer to one prompt of ``LLM.embed``."""

    __slots__ = ()


class ClassificationRequestOutput(PoolingRequestOutput[ClassificationOutput]):
    """The answer to one prompt of ``LLM.classify``."""

    __slots__ = ()


class ScoringRequestOutput(PoolingRequestOutput[ScoringOutput]):
    """The answer to one pair of ``LLM.score``."""

    __slots__ = ()


def _short(numbers: Sequence[float]) -> str:
    shown = ", ".join(f"{number:.6g}" for number in numbers[:_SHOWN])
    return f"[{shown}, ...]" if len(numbers) > _SHOWN else f"[{shown}]"
