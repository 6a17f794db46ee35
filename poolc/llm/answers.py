"""Results of the Engine as what LLM's methods answer, prompt by prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from poolc.runtime.heads import Result
from poolc.runtime.heads.hybrid import HybridVectors
from poolc.runtime.outputs import Classification
from poolc.runtime.request import Prepared
from poolc.runtime.sparse import SparseVectors


@dataclass(frozen=True, slots=True)
class Answer:
    """One prompt's (or pair's) result: an array, or one number."""

    token_ids: list[int]
    truncated: bool
    value: Any


def token_ids(part: Prepared, pad_token_id: int) -> list[list[int]]:
    """Return the ids of each prompt, of both texts of a pair with the padding id between."""
    # Of a chunked text, the ids of its windows one after the other.
    ids: list[list[int]] = [np.concatenate([s.ids for s in item]).tolist() for item in part.items]
    if part.pairs is None:
        return ids
    return [[*ids[left], pad_token_id, *ids[right]] for left, right in part.pairs.tolist()]


def values(result: Result) -> list[Any]:
    """Return the value of each prompt."""
    if isinstance(result, HybridVectors):
        raise TypeError("no method of LLM answers with several kinds of vectors")
    if isinstance(result, SparseVectors):
        return list(result.to_dense())
    return list(result.probs if isinstance(result, Classification) else result)
