"""Pooling: token vectors -> one vector a text.

Formulas are those of Sentence Transformers (pooling.py of version 6) for right-padded input;
padded positions never count.
"""

from __future__ import annotations

from torch import Tensor

from poolc.spec import PoolingType


def pool(hidden: Tensor, mask: Tensor, kind: PoolingType) -> Tensor:
    """Pool (batch, seq, hidden) where mask (batch, seq) is 1 -> (batch, hidden)."""
    if kind is PoolingType.CLS:
        return hidden[:, 0]
    if kind is PoolingType.LAST:
        last = mask.sum(dim=1) - 1  # (batch,)
        index = last.clamp(min=0)[:, None, None].expand(-1, 1, hidden.shape[-1])
        return hidden.gather(1, index).squeeze(1)
    weights = mask.unsqueeze(-1).to(hidden.dtype)  # (batch, seq, 1)
    if kind is PoolingType.MAX:
        return hidden.masked_fill(weights == 0, float("-inf")).amax(dim=1)
    if kind is PoolingType.WEIGHTED_MEAN:  # position p, counted from 1, has weight p
        weights = weights * mask.cumsum(dim=1).unsqueeze(-1).to(hidden.dtype)
    total = (hidden * weights).sum(dim=1)
    count = weights.sum(dim=1).clamp(min=1e-9)
    return total / (count.sqrt() if kind is PoolingType.MEAN_SQRT_LEN else count)
