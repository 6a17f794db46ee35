"""MaxSim: how well the token vectors of a query fit those of documents.

Knows nothing about models. Documents whose tokens were all skipped rank below all others, as in
Sentence Transformers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from poolc.runtime.outputs import Float32, Ragged

EMPTY_DOCUMENT = -1e9
# Similarities (query tokens x document tokens) that are in memory at once.
_MAX_ELEMENTS = 1 << 22


def maxsim(query: Float32, documents: Ragged, *, mean: bool = False) -> Float32:
    """Sum over the query's tokens the best match in each document: [q, dim] -> float32 [n].

    ``mean`` divides by the query's tokens.
    """
    scores = np.empty(len(documents), np.float32)
    lengths = np.diff(documents.offsets)
    start = 0
    while start < len(documents):
        room = max(1, _MAX_ELEMENTS // max(1, len(query)))
        stop = int(np.searchsorted(documents.offsets, documents.offsets[start] + room, "right")) - 1
        stop = min(max(stop, start + 1), len(documents))
        scores[start:stop] = _block(query, documents, start, stop, lengths)
        start = stop
    return scores / np.float32(max(1, len(query))) if mean else scores


def _block(
    query: Float32, documents: Ragged, start: int, stop: int, lengths: npt.NDArray[np.int64]
) -> Float32:
    offsets = documents.offsets[start : stop + 1]
    scores = np.full(stop - start, EMPTY_DOCUMENT, np.float32)
    filled = lengths[start:stop] > 0
    if filled.any():
        values = documents.values[offsets[0] : offsets[-1]]
        similarities = values @ query.T  # (document tokens, query tokens)
        best = np.maximum.reduceat(similarities, (offsets[:-1] - offsets[0])[filled], axis=0)
        scores[filled] = best.sum(axis=1)
    return scores
