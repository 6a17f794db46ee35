"""Pooling: token vectors -> one vector a text.

Formulas are those of Sentence Transformers (pooling.py of version 6) for right-padded input;
padded positions never count.
"""

from __future__ import annotations

from torch import Tensor

from poolc.spec import PoolingType


def pool(hidden: Tensor, mask: Tensor, kind: PoolingType, counted: Tensor | None = None) -> Tensor:
    """Pool (batch, seq, hidden) where mask (batch, seq) is 1 -> (batch, hidden).

    ``counted`` (batch, seq) is 1 for tokens that count, where not all of the mask's do: a prompt's
    do not. Positions are still those in the whole text.
    """
    if kind is PoolingType.CLS:
        if counted is None:
            return hidden[:, 0]
        return _at(hidden, (counted.cumsum(dim=1) == 0).sum(dim=1))  # the first that counts
    if kind is PoolingType.LAST and counted is None:
        return _at(hidden, mask.sum(dim=1) - 1)
    positions = mask.cumsum(dim=1)  # from 1
    mask = mask if counted is None else counted
    if kind is PoolingType.LAST:
        return _at(hidden, (positions * mask).amax(dim=1) - 1)
    weights = mask.unsqueeze(-1).to(hidden.dtype)  # (batch, seq, 1)
    if kind is PoolingType.MAX:
        return hidden.masked_fill(weights == 0, float("-inf")).amax(dim=1)
    if kind is PoolingType.WEIGHTED_MEAN:  # position p, counted from 1, has weight p
        weights = weights * positions.unsqueeze(-1).to(hidden.dtype)
    total = (hidden * weights).sum(dim=1)
    count = weights.sum(dim=1).clamp(min=1e-9)
    return total / (count.sqrt() if kind is PoolingType.MEAN_SQRT_LEN else count)


def _at(hidden: Tensor, position: Tensor) -> Tensor:  # (batch,) -> (batch, hidden)
    index = position.clamp(min=0)[:, None, None].expand(-1, 1, hidden.shape[-1])
    return hidden.gather(1, index).squeeze(1)
