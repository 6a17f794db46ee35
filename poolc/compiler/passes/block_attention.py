"""Attention over long texts in blocks of queries, so that memory grows with their length only.

    Attention(q, k, v, mask)  ->  If(seq > 1,024, Loop(blocks of queries), Attention(q, k, v, mask))

The body of the loop makes its own rows of the mask (``mask_rows.py``). For short texts nothing
changes, and the mask is made once for all layers; for long ones that mask has a single row, which
nobody reads. Figures: docs/decisions/013-long-attention.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from poolc.compiler.passes.mask_rows import MaskRows, NotUnderstoodError
from poolc.compiler.passes.nodes import Nodes

# Up to here one node is as fast as blocks, and its scores are small.
MAX_WHOLE_TOKENS = 1024
_BLOCK_ROWS = 256
_MASK = 3  # of Attention's inputs


@dataclass(frozen=True, slots=True)
class _Length:
    """What depends on the number of queries alone; built once for all layers."""

    tokens: ir.Value  # []
    is_long: ir.Value  # [] bool
    blocks: ir.Value  # []
    rows: ir.Value  # [], of a block
    offsets: ir.Value  # [rows], from 0
    last: ir.Value  # []
    short_rows: ir.Value  # [n]: all of a short text, the first of a long one
    short_masks: dict[ir.Value, ir.Value] = field(default_factory=dict)


class BlockAttentionPass(ir.passes.InPlacePass):
    """Block every ``Attention`` of the graph; ``record`` then says what could not be blocked."""

    def __init__(self, max_whole: int = MAX_WHOLE_TOKENS, block_rows: int = _BLOCK_ROWS) -> None:
        super().__init__()
        self.max_whole, self.block_rows = max_whole, block_rows
        self._blocked = 0
        self._left: list[str] = []  # what stayed as it was, and why
        self._whole_masks: list[str] = []  # made as a whole, for their rows are not understood

    @property
    def record(self) -> dict[str, Any]:
        """What was done to the last graph, for the manifest."""
        return {
            "max_whole_tokens": self.max_whole,
            "block_rows": self.block_rows,
            "blocked": self._blocked,
            "left": self._left,
            "whole_masks": self._whole_masks,
        }

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        lengths: dict[str, _Length] = {}
        graph = model.graph
        for index, node in enumerate([n for n in graph if n.op_type == "Attention"]):
            reason = _unfit(node)
            if reason is not None:
                self._left.append(f"{node.name}: {reason}")
                continue
            self._block(graph, node, lengths, f"block_{index}")
            self._blocked += 1
        self._left += [f"{node.name}: not an Attention node" for node in graph if _is_scores(node)]
        if self._blocked:
            RemoveUnusedNodesPass()(model)
        return ir.passes.PassResult(model, bool(self._blocked))

    def _block(
        self, graph: ir.Graph, node: ir.Node, lengths: dict[str, _Length], prefix: str
    ) -> None:
        before = Nodes(graph, prefix)
        length = self._length(before, node, lengths)
        mask = node.inputs[_MASK] if len(node.inputs) > _MASK else None
        long = self._long(graph, node, length, prefix)
        short = Nodes(graph, f"{prefix}_short")
        inputs = [*node.inputs[:_MASK], self._short_mask(before, mask, length)]
        whole = short.repeat(node, inputs if mask is not None else list(node.inputs))
        chosen = before.add(
            "If",
            length.is_long,
            then_branch=long,
            else_branch=short.subgraph(f"{prefix}_short", [], [whole]),
        )
        graph.insert_before(node, before.made)
        _replace(node.outputs[0], chosen)
        graph.remove(node, safe=True)

    def _length(self, nodes: Nodes, node: ir.Node, lengths: dict[str, _Length]) -> _Length:
        query = _input(node, 0)
        dim = _query_dim(query)
        name = dim if isinstance(dim, str) else str(query.name)
        if name not in lengths:
            axis = _rank(query) - 2
            size = nodes.add("Shape", query, start=axis, end=axis + 1)
            lengths[name] = self._of_size(nodes, nodes.add("Squeeze", size))
        return lengths[name]

    def _of_size(self, nodes: Nodes, tokens: ir.Value) -> _Length:
        zero, one = nodes.number(0), nodes.number(1)
        blocks = _ceil_div(nodes, tokens, nodes.number(self.block_rows))
        rows = _ceil_div(nodes, tokens, blocks)  # blocks of equal size: no nearly empty last one
        is_long = nodes.add("Greater", tokens, nodes.number(self.max_whole))
        short = nodes.add("Where", is_long, one, tokens)
        return _Length(
            tokens=tokens,
            is_long=is_long,
            blocks=blocks,
            rows=rows,
            offsets=nodes.add("Range", zero, rows, one),
            last=nodes.add("Sub", tokens, one),
            short_rows=nodes.add("Range", zero, short, one),
        )

    def _short_mask(self, nodes: Nodes, mask: ir.Value | None, length: _Length) -> ir.Value | None:
        """Return the mask of short texts; of long ones its first row."""
        if mask is None:
            return None
        if mask not in length.short_masks:
            start = len(nodes.made)
            try:
                taken = MaskRows(nodes, length.short_rows).take(mask, _rank(mask) - 2)
            except NotUnderstoodError as error:
                del nodes.made[start:]
                self._whole_masks.append(f"{mask.name}: {error} makes it")
                taken = mask
            length.short_masks[mask] = taken
        return length.short_masks[mask]

    def _long(self, graph: ir.Graph, node: ir.Node, length: _Length, prefix: str) -> ir.Graph:
        nodes = Nodes(graph, f"{prefix}_long")
        axis = _rank(_input(node, 0)) - 2
        body = _body(graph, node, length, f"{prefix}_body")
        # [blocks, ..., rows, size]; without a condition ONNX Runtime refuses the node
        made = nodes.add("Loop", length.blocks, length.is_long, body=body)
        order = [*range(1, axis + 1), 0, axis + 1, axis + 2]
        ordered = nodes.add("Transpose", made, perm=order)
        size = nodes.add("Shape", made, start=axis + 2)
        shape = nodes.add("Concat", nodes.numbers(*[0] * axis, -1), size, axis=0)
        joined = nodes.add("Reshape", ordered, shape)
        end = nodes.add("Unsqueeze", length.tokens, nodes.numbers(0))
        cut = nodes.add("Slice", joined, nodes.numbers(0), end, nodes.numbers(axis))
        cut.dtype = node.outputs[0].dtype
        return nodes.subgraph(f"{prefix}_long", [], [cut])


def _body(graph: ir.Graph, node: ir.Node, length: _Length, prefix: str) -> ir.Graph:
    """Return what one block does: its queries, its rows of the mask, its attention.

    The last block's rows beyond the end are its last one again.
    """
    nodes = Nodes(graph, prefix)
    number = ir.val(f"{prefix}_number", ir.DataType.INT64, [])
    go_on = ir.val(f"{prefix}_go_on", ir.DataType.BOOL, [])
    start = nodes.add("Mul", number, length.rows)
    rows = nodes.add("Min", nodes.add("Add", length.offsets, start), length.last)
    taken = MaskRows(nodes, rows)
    query = _input(node, 0)
    inputs = [taken.gather(query, _rank(query) - 2), *node.inputs[1:_MASK]]
    if len(node.inputs) > _MASK and node.inputs[_MASK] is not None:
        inputs.append(_mask_rows(nodes, taken, _input(node, _MASK)))
    attended = nodes.repeat(node, inputs)
    outputs = [nodes.add("Identity", go_on), attended]
    outputs[0].dtype = ir.DataType.BOOL
    return nodes.subgraph(prefix, [number, go_on], outputs)


def _mask_rows(nodes: Nodes, taken: MaskRows, mask: ir.Value) -> ir.Value:
    start, axis = len(nodes.made), _rank(mask) - 2
    try:
        return taken.take(mask, axis)
    except NotUnderstoodError:
        del nodes.made[start:]
        return taken.gather(mask, axis)


def _unfit(node: ir.Node) -> str | None:
    """Say why a node stays as it is; None where it can be blocked."""
    if node.domain or len(node.outputs) != 1 or any(node.inputs[_MASK + 1 :]):
        return "it keeps keys and values of earlier calls"
    causal = node.attributes.get("is_causal")
    if causal is not None and causal.as_int():
        return "is_causal counts from the first query of a block"
    shapes = [value.shape for value in node.inputs[: _MASK + 1] if value is not None]
    if any(shape is None for shape in shapes):
        return "its shapes are not known"
    if len(shapes) > _MASK and shapes[_MASK] is not None and len(shapes[_MASK] or ()) < 2:
        return "its mask is no matrix"
    return None


def _is_scores(node: ir.Node) -> bool:
    """Say whether a node is the softmax of an attention that is written out."""
    shape = node.inputs[0].shape if node.op_type == "Softmax" and node.inputs[0] else None
    if shape is None or len(shape) < 3:
        return False
    return not isinstance(shape[-1], int) and not isinstance(shape[-2], int)


def _replace(old: ir.Value, new: ir.Value) -> None:
    new.shape, new.type = old.shape, old.type
    new.name, old.name = old.name, f"{old.name}_whole"  # graph outputs keep their names
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)


def _ceil_div(nodes: Nodes, number: ir.Value, by: ir.Value) -> ir.Value:
    one = nodes.number(1)
    return nodes.add("Div", nodes.add("Add", number, nodes.add("Sub", by, one)), by)


def _input(node: ir.Node, place: int) -> ir.Value:
    value = node.inputs[place]
    assert value is not None, f"{node.name} has no input {place}"
    return value


def _rank(value: ir.Value) -> int:
    assert value.shape is not None, f"{value.name} has no shape"
    return len(value.shape)


def _query_dim(query: ir.Value) -> int | str | None:
    assert query.shape is not None
    dim = query.shape[-2]
    return dim if isinstance(dim, int) else dim.value
