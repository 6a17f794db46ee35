"""Pooling as ONNX nodes: token vectors -> one vector a text. Formulas are those of ``heads/``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from poolc.compiler.onnx_source.nodes import Nodes
from poolc.spec import PoolingType, SparseSpec


@dataclass(frozen=True, slots=True)
class Tokens:
    """A text's tokens: vectors in fp32, masks in int64.

    ``counted`` is 1 where a token counts, where not all of the mask's do: a prompt's do not.
    """

    vectors: ir.Value  # (batch, seq, width)
    mask: ir.Value  # (batch, seq)
    width: int
    counted: ir.Value | None = None  # (batch, seq)


def pool(nodes: Nodes, tokens: Tokens, kinds: Sequence[PoolingType]) -> ir.Value:
    """Pool the tokens that count -> (batch, width * len(kinds))."""
    pooled = [_pool(nodes, tokens, kind) for kind in kinds]
    return pooled[0] if len(pooled) == 1 else nodes.add("Concat", *pooled, axis=1)


def pool_sparse(nodes: Nodes, logits: Tokens, spec: SparseSpec) -> ir.Value:
    """Make one weight a token of the vocabulary of the tokens' logits -> (batch, width)."""
    if spec.pooling == "max":
        # relu and log(1 + x) never change an order: pooled first, they see one row a text.
        nothing = nodes.constant(0.0)
        shown = nodes.add("Where", _is_zero(nodes, logits.mask), nothing, logits.vectors)
        return _weights(nodes, nodes.reduce("ReduceMax", shown, 1), spec.log1p)
    # As a product the masked sum needs no second tensor of this size.
    row = nodes.add(
        "Reshape", nodes.as_float(logits.mask), nodes.constant([0, 1, -1], np.int64)
    )  # (batch, 1, seq)
    total = nodes.add("MatMul", row, _weights(nodes, logits.vectors, spec.log1p))
    return nodes.add("Reshape", total, nodes.constant([-1, logits.width], np.int64))


def _weights(nodes: Nodes, logits: ir.Value, log1p: int) -> ir.Value:
    weights = nodes.add("Relu", logits)
    for _ in range(log1p):
        weights = nodes.add("Log", nodes.add("Add", weights, nodes.constant(1.0)))
    return weights


def _pool(nodes: Nodes, tokens: Tokens, kind: PoolingType) -> ir.Value:
    if kind in (PoolingType.CLS, PoolingType.LAST):
        return _at(nodes, tokens, _place(nodes, tokens, kind))
    mask = tokens.mask if tokens.counted is None else tokens.counted
    if kind is PoolingType.MAX:
        lowest = nodes.constant(-math.inf)
        shown = nodes.add("Where", _is_zero(nodes, mask), lowest, tokens.vectors)
        return nodes.reduce("ReduceMax", shown, 1)
    counted = nodes.as_float(mask)
    if kind is PoolingType.WEIGHTED_MEAN:  # position p, counted from 1, has weight p
        counted = nodes.add("Mul", counted, _running(nodes, tokens.mask))
    weights = nodes.add("Reshape", counted, nodes.constant([0, 0, 1], np.int64))  # (batch, seq, 1)
    total = nodes.reduce("ReduceSum", nodes.add("Mul", tokens.vectors, weights), 1)
    count = nodes.add("Max", nodes.reduce("ReduceSum", weights, 1), nodes.constant(1e-9))
    if kind is PoolingType.MEAN_SQRT_LEN:
        count = nodes.add("Sqrt", count)
    return nodes.add("Div", total, count)


def _place(nodes: Nodes, tokens: Tokens, kind: PoolingType) -> ir.Value | None:
    """Return the place of the first or last token that counts, (batch,) f32; None: the first."""
    if kind is PoolingType.LAST:
        if tokens.counted is None:
            count = nodes.reduce("ReduceSum", nodes.as_float(tokens.mask), 1)
        else:
            counted = nodes.as_float(tokens.counted)
            places = nodes.add("Mul", _running(nodes, tokens.mask), counted)
            count = nodes.reduce("ReduceMax", places, 1)
        return nodes.add("Sub", count, nodes.constant(1.0))
    if tokens.counted is None:
        return None
    before = nodes.add("Less", _running(nodes, tokens.counted), nodes.constant(0.5))
    return nodes.reduce("ReduceSum", nodes.as_float(before), 1)


def _at(nodes: Nodes, tokens: Tokens, place: ir.Value | None) -> ir.Value:
    if place is None:
        return nodes.add("Gather", tokens.vectors, nodes.constant(0, np.int64), axis=1)
    place = nodes.add("Max", place, nodes.constant(0.0))
    place = nodes.add("Cast", place, to=int(ir.DataType.INT64))
    place = nodes.add("Reshape", place, nodes.constant([-1, 1, 1], np.int64))
    index = nodes.add("Expand", place, nodes.constant([1, 1, tokens.width], np.int64))
    chosen = nodes.add("GatherElements", tokens.vectors, index, axis=1)
    return nodes.add("Reshape", chosen, nodes.constant([-1, tokens.width], np.int64))


def _running(nodes: Nodes, mask: ir.Value) -> ir.Value:
    """Count from 1 along the tokens."""
    return nodes.add("CumSum", nodes.as_float(mask), nodes.constant(1, np.int64))


def _is_zero(nodes: Nodes, mask: ir.Value) -> ir.Value:  # (batch, seq, 1)
    zero = nodes.add("Equal", mask, nodes.constant(0, np.int64))
    return nodes.add("Reshape", zero, nodes.constant([0, 0, 1], np.int64))
