"""Heads in NumPy: what the parity gate holds the attached ones against.

Written from Sentence Transformers' formulas, apart from ``graph_heads.py``. In double precision, of
one text, without padding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from poolc.compiler.onnx_source.layers import LAYER_NORM_EPSILON, Layer
from poolc.spec import Activation, LayerKind, PoolingType, SparseSpec

Vector = npt.NDArray[np.float64]


def pool(hidden: Vector, kinds: Sequence[PoolingType], skipped: int = 0) -> Vector:
    """Pool the token vectors of a text (seq, hidden) -> (hidden times the number of kinds,).

    The first ``skipped`` tokens, a prompt's, do not count.
    """
    return np.concatenate([_POOLING[kind](hidden, skipped) for kind in kinds])


def pool_sparse(logits: Vector, spec: SparseSpec) -> Vector:
    """Make one weight a token of the vocabulary of the logits (seq, vocab) of a text."""
    weights = np.maximum(logits, 0)
    for _ in range(spec.log1p):
        weights = np.log1p(weights)
    pooled: Vector = weights.max(0) if spec.pooling == "max" else weights.sum(0)
    return pooled


def apply(layers: Sequence[Layer], x: Vector) -> Vector:
    """Run vectors, (..., features), through a chain of modules."""
    for layer in layers:
        x = _LAYERS[layer.spec.kind](layer, x)
    return x


def normalize(x: Vector) -> Vector:
    """Return unit vectors."""
    unit: Vector = x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
    return unit


def activate(kind: Activation, x: Vector) -> Vector:
    """Apply an activation; softmax is over the last axis."""
    return _ACTIVATIONS[kind](x)


def _weighted(hidden: Vector, skipped: int) -> Vector:
    positions = np.arange(1, len(hidden) + 1)[skipped:]
    mean: Vector = positions @ hidden[skipped:] / positions.sum()
    return mean


_POOLING: Mapping[PoolingType, Callable[[Vector, int], Vector]] = {
    PoolingType.CLS: lambda hidden, skipped: hidden[skipped],
    PoolingType.LAST: lambda hidden, skipped: hidden[-1],
    PoolingType.MEAN: lambda hidden, skipped: hidden[skipped:].mean(0),
    PoolingType.MAX: lambda hidden, skipped: hidden[skipped:].max(0),
    PoolingType.MEAN_SQRT_LEN: lambda hidden, skipped: (
        hidden[skipped:].sum(0) / math.sqrt(len(hidden) - skipped)
    ),
    PoolingType.WEIGHTED_MEAN: _weighted,
}


def _dense(layer: Layer, x: Vector) -> Vector:
    spec, tensors = layer.spec, layer.tensors
    y = x @ tensors["linear.weight"].T.astype(np.float64)
    out = activate(spec.activation, y + tensors["linear.bias"] if spec.bias else y)
    if not spec.residual:
        return out
    added: Vector = out + (x @ tensors["residual.weight"].T if "residual.weight" in tensors else x)
    return added


def _layer_norm(layer: Layer, x: Vector) -> Vector:
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    unit = (x - mean) / np.sqrt(variance + LAYER_NORM_EPSILON)
    gained: Vector = unit * layer.tensors["norm.weight"] + layer.tensors["norm.bias"]
    return gained


_LAYERS: Mapping[LayerKind, Callable[[Layer, Vector], Vector]] = {
    LayerKind.DENSE: _dense,
    LayerKind.LAYER_NORM: _layer_norm,
    LayerKind.NORMALIZE: lambda _, x: normalize(x),
}


def _softmax(x: Vector) -> Vector:
    powers = np.exp(x - x.max(-1, keepdims=True))
    shares: Vector = powers / powers.sum(-1, keepdims=True)
    return shares


def _gelu(x: Vector) -> Vector:
    share: Vector = 1 + np.vectorize(math.erf)(x / math.sqrt(2))
    return x * 0.5 * share


def _sigmoid(x: Vector) -> Vector:
    share: Vector = np.exp(-np.logaddexp(0, -x))
    return share


# Constants of Klambauer et al., "Self-Normalizing Neural Networks", as torch has them.
_SELU, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772
RRELU_SLOPE = (1 / 8 + 1 / 3) / 2  # torch's slope outside training

_ACTIVATIONS: Mapping[Activation, Callable[[Vector], Vector]] = {
    Activation.IDENTITY: lambda x: x,
    Activation.SIGMOID: _sigmoid,
    Activation.SOFTMAX: _softmax,
    Activation.TANH: np.tanh,
    Activation.RELU: lambda x: np.maximum(x, 0),
    Activation.GELU: _gelu,
    Activation.SILU: lambda x: x * _sigmoid(x),
    Activation.ELU: lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    Activation.LEAKY_RELU: lambda x: np.where(x > 0, x, 0.01 * x),
    Activation.MISH: lambda x: x * np.tanh(np.logaddexp(0, x)),
    Activation.SOFTPLUS: lambda x: np.logaddexp(0, x),
    Activation.CELU: lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    Activation.SELU: lambda x: _SELU * np.where(x > 0, x, _SELU_ALPHA * np.expm1(np.minimum(x, 0))),
    Activation.RELU6: lambda x: np.clip(x, 0, 6),
    Activation.RRELU: lambda x: np.where(x > 0, x, RRELU_SLOPE * x),
    Activation.HARDSIGMOID: lambda x: np.clip(x / 6 + 0.5, 0, 1),
    Activation.HARDSWISH: lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    Activation.HARDTANH: lambda x: np.clip(x, -1, 1),
    Activation.HARDSHRINK: lambda x: np.where(np.abs(x) > 0.5, x, 0),
    Activation.SOFTSHRINK: lambda x: np.sign(x) * np.maximum(np.abs(x) - 0.5, 0),
    Activation.SOFTSIGN: lambda x: x / (1 + np.abs(x)),
    Activation.TANHSHRINK: lambda x: x - np.tanh(x),
    Activation.LOGSIGMOID: lambda x: -np.logaddexp(0, -x),
}
