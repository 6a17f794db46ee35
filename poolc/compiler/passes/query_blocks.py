"""What runs for a long text instead of an ``Attention`` node: a loop over blocks of its queries.

Knows nothing of which nodes are replaced, and when; that is ``block_attention.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir

from poolc.compiler.passes.mask_reach import EVERYTHING, Reach
from poolc.compiler.passes.mask_rows import Columns, MaskRows, NotUnderstoodError
from poolc.compiler.passes.nodes import Nodes

MASK = 3  # of Attention's inputs


@dataclass(frozen=True, slots=True)
class Blocks:
    """How attention of one reach is cut: from which length on, into blocks of how many queries."""

    reach: Reach
    max_whole: int
    rows: int


@dataclass(frozen=True, slots=True)
class Length:
    """What depends on the number of queries and its blocks alone; built once for all layers."""

    blocks: Blocks
    tokens: ir.Value  # []
    is_long: ir.Value  # [] bool
    number: ir.Value  # [], of blocks
    rows: ir.Value  # [], of a block
    offsets: ir.Value  # [rows], from 0
    last: ir.Value  # []
    short_rows: ir.Value  # [n]: all of a short text, the first of a long one
    short_masks: dict[ir.Value, ir.Value] = field(default_factory=dict)


def length_of(nodes: Nodes, tokens: ir.Value, blocks: Blocks) -> Length:
    """Build what depends on a number of queries, [] of int64, and how they are cut."""
    zero, one = nodes.number(0), nodes.number(1)
    number = _ceil_div(nodes, tokens, nodes.number(blocks.rows))
    rows = _ceil_div(nodes, tokens, number)  # blocks of equal size: no nearly empty last one
    is_long = nodes.add("Greater", tokens, nodes.number(blocks.max_whole))
    short = nodes.add("Where", is_long, one, tokens)
    return Length(
        blocks=blocks,
        tokens=tokens,
        is_long=is_long,
        number=number,
        rows=rows,
        offsets=nodes.add("Range", zero, rows, one),
        last=nodes.add("Sub", tokens, one),
        short_rows=nodes.add("Range", zero, short, one),
    )


def in_blocks(graph: ir.Graph, node: ir.Node, length: Length, prefix: str) -> ir.Graph:
    """Return the branch that runs an ``Attention`` node block by block."""
    nodes = Nodes(graph, f"{prefix}_long")
    axis = rank_of(input_of(node, 0)) - 2
    body = _body(graph, node, length, f"{prefix}_body")
    # [blocks, ..., rows, size]; without a condition ONNX Runtime refuses the node
    made = nodes.add("Loop", length.number, length.is_long, body=body)
    order = [*range(1, axis + 1), 0, axis + 1, axis + 2]
    ordered = nodes.add("Transpose", made, perm=order)
    size = nodes.add("Shape", made, start=axis + 2)
    shape = nodes.add("Concat", nodes.numbers(*[0] * axis, -1), size, axis=0)
    joined = nodes.add("Reshape", ordered, shape)
    end = nodes.add("Unsqueeze", length.tokens, nodes.numbers(0))
    cut = nodes.add("Slice", joined, nodes.numbers(0), end, nodes.numbers(axis))
    cut.dtype = node.outputs[0].dtype
    return nodes.subgraph(f"{prefix}_long", [], [cut])


def _body(graph: ir.Graph, node: ir.Node, length: Length, prefix: str) -> ir.Graph:
    """Return what one block does: its queries, its part of the mask, its attention.

    The last block's rows beyond the end are its last one again.
    """
    nodes = Nodes(graph, prefix)
    number = ir.val(f"{prefix}_number", ir.DataType.INT64, [])
    go_on = ir.val(f"{prefix}_go_on", ir.DataType.BOOL, [])
    start = nodes.add("Mul", number, length.rows)
    rows = nodes.add("Min", nodes.add("Add", length.offsets, start), length.last)
    taken = MaskRows(nodes, rows, _columns(nodes, start, length))
    query = input_of(node, 0)
    inputs = [taken.gather(query, rank_of(query) - 2)]
    inputs += [
        taken.cut(value, rank_of(value) - 2) for value in (input_of(node, 1), input_of(node, 2))
    ]
    mask = mask_of(node)
    if mask is not None:
        inputs.append(_mask_rows(nodes, taken, mask))
    attended = nodes.repeat(node, list(inputs))
    outputs = [nodes.add("Identity", go_on), attended]
    outputs[0].dtype = ir.DataType.BOOL
    return nodes.subgraph(prefix, [number, go_on], outputs)


def _columns(nodes: Nodes, start: ir.Value, length: Length) -> Columns | None:
    """Return the keys that the queries from ``start`` on see; None where that is all of them."""
    reach = length.blocks.reach
    if reach == EVERYTHING:
        return None
    first, end = nodes.number(0), length.tokens
    if reach.before is not None:
        first = nodes.add("Max", nodes.add("Sub", start, nodes.number(reach.before)), first)
    if reach.after is not None:
        beyond = nodes.add("Add", start, length.rows)
        beyond = nodes.add("Add", beyond, nodes.number(reach.after))
        end = nodes.add("Min", beyond, end)
    axis = nodes.numbers(0)
    return Columns(nodes.add("Unsqueeze", first, axis), nodes.add("Unsqueeze", end, axis))


def _mask_rows(nodes: Nodes, taken: MaskRows, mask: ir.Value) -> ir.Value:
    start, axis = len(nodes.made), rank_of(mask) - 2
    try:
        return taken.take(mask, axis)
    except NotUnderstoodError:
        del nodes.made[start:]
        return taken.gather_mask(mask, axis)


def _ceil_div(nodes: Nodes, number: ir.Value, by: ir.Value) -> ir.Value:
    one = nodes.number(1)
    return nodes.add("Div", nodes.add("Add", number, nodes.add("Sub", by, one)), by)


def mask_of(node: ir.Node) -> ir.Value | None:
    """Return the mask of an ``Attention`` node, if it has one."""
    return node.inputs[MASK] if len(node.inputs) > MASK else None


def input_of(node: ir.Node, place: int) -> ir.Value:
    """Return an input that the node must have."""
    value = node.inputs[place]
    assert value is not None, f"{node.name} has no input {place}"
    return value


def rank_of(value: ir.Value) -> int:
    """Return the number of axes of a value whose shape is known."""
    assert value.shape is not None, f"{value.name} has no shape"
    return len(value.shape)
