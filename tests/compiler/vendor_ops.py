"""ONNX Runtime's operators for CUDA in NumPy, as its documentation of contrib operators has them.

Its CPU provider has no PackedMultiHeadAttention; with these, ``onnx.reference`` runs graphs for
CUDA anywhere. Sums are in float64, so that what is compared is the graph.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

Array = Any


class PackedMultiHeadAttention(OpRun):
    op_domain = "com.microsoft"

    def _run(
        self,
        query: Array,
        key: Array,
        value: Array,
        bias: Array,
        token_offset: Array,
        starts: Array,
        attention_bias: Array = None,
        mask_filter_value: float | None = None,
        num_heads: int | None = None,
        scale: float | None = None,
    ) -> tuple[Array]:
        assert bias is None and attention_bias is None and num_heads is not None
        assert token_offset.shape[0] == len(starts) - 1 and starts[-1] == len(query)
        out = np.zeros(value.shape, np.float64)
        size = query.shape[1] // num_heads
        for start, stop in pairwise(starts):
            for head in range(num_heads):
                columns = slice(head * size, (head + 1) * size)
                q, k, v = (a[start:stop, columns].astype(np.float64) for a in (query, key, value))
                logits = q @ k.T * (scale or 1 / math.sqrt(size))
                weights = np.exp(logits - logits.max(axis=-1, keepdims=True, initial=-np.inf))
                out[start:stop, columns] = weights / weights.sum(axis=-1, keepdims=True) @ v
        return (out.astype(query.dtype),)


class SkipLayerNormalization(OpRun):
    op_domain = "com.microsoft"

    def _run(
        self,
        x: Array,
        skip: Array,
        gamma: Array,
        beta: Array = None,
        bias: Array = None,
        epsilon: float | None = None,
    ) -> tuple[Array, ...]:
        total = x.astype(np.float64) + skip + (0 if bias is None else bias)
        mean = total.mean(axis=-1, keepdims=True)
        variance = ((total - mean) ** 2).mean(axis=-1, keepdims=True)
        unit = (total - mean) / np.sqrt(variance + epsilon)
        normed = unit * gamma + (0 if beta is None else beta)
        return _outputs(self, normed.astype(x.dtype), total.astype(x.dtype))


class SkipSimplifiedLayerNormalization(OpRun):
    op_domain = "com.microsoft"

    def _run(
        self,
        x: Array,
        skip: Array,
        gamma: Array,
        bias: Array = None,
        epsilon: float | None = None,
    ) -> tuple[Array, ...]:
        total = x.astype(np.float64) + skip + (0 if bias is None else bias)
        unit = total / np.sqrt((total**2).mean(axis=-1, keepdims=True) + epsilon)
        return _outputs(self, (unit * gamma).astype(x.dtype), total.astype(x.dtype))


class BiasGelu(OpRun):
    op_domain = "com.microsoft"

    def _run(self, x: Array, bias: Array) -> tuple[Array]:
        total = x.astype(np.float64) + bias
        erf = np.vectorize(math.erf)
        return ((total * 0.5 * (1 + erf(total / math.sqrt(2)))).astype(x.dtype),)


class GatherElements(OpRun):
    """The one that comes with onnx 1.23 fails for three axes."""

    def _run(self, data: Array, indices: Array, axis: int | None = None) -> tuple[Array]:
        return (np.take_along_axis(data, indices, axis or 0),)


class RotaryEmbedding(OpRun):
    """onnx's own takes [batch, heads, seq, size] alone."""

    def _run(
        self,
        x: Array,
        cos: Array,
        sin: Array,
        positions: Array = None,
        interleaved: int | None = None,
        num_heads: int | None = None,
        rotary_embedding_dim: int | None = None,
    ) -> tuple[Array]:
        assert positions is None and not interleaved
        whole = x.shape
        if x.ndim == 3:
            x = x.reshape(*whole[:2], num_heads, -1).transpose(0, 2, 1, 3)
        size = rotary_embedding_dim or x.shape[-1]
        turned, rest = x[..., :size], x[..., size:]
        first, second = np.split(turned, 2, axis=-1)
        cos, sin = cos[:, None], sin[:, None]
        parts = [first * cos - second * sin, second * cos + first * sin, rest]
        made = np.concatenate(parts, axis=-1)
        if len(whole) == 3:
            made = made.transpose(0, 2, 1, 3).reshape(whole)
        return (made.astype(x.dtype),)


def _outputs(node: Any, normed: Array, total: Array) -> tuple[Array, ...]:
    """The mean and the inverse deviation are for training; the fourth output is the sum."""
    if len(node.onnx_node.output) == 1:
        return (normed,)
    nothing = np.zeros(0, normed.dtype)
    return normed, nothing, nothing, total


OPS = [
    PackedMultiHeadAttention,
    SkipLayerNormalization,
    SkipSimplifiedLayerNormalization,
    BiasGelu,
    GatherElements,
    RotaryEmbedding,
]


def evaluator(model: Any) -> ReferenceEvaluator:
    """Run a graph for CUDA in NumPy."""
    return ReferenceEvaluator(model, new_ops=OPS)
