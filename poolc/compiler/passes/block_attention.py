"""Attention over long texts in blocks of queries, so that memory grows with their length only.

    Attention(q, k, v, mask)  ->  If(seq > 1,024, Loop(blocks of queries), Attention(q, k, v, mask))

The body of the loop makes its own rows of the mask (``mask_rows.py``) and reads only the keys that
its queries see (``mask_reach.py``). So the time of local attention grows with the length only, and
it is blocked from shorter texts on. For short texts nothing changes, and the mask is made once for
all layers; for long ones that mask has a single row, which nobody reads. Figures:
docs/decisions/013-long-attention.md.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from poolc.compiler.passes.mask_reach import EVERYTHING, Reach, reach_of
from poolc.compiler.passes.mask_rows import MaskRows, NotUnderstoodError
from poolc.compiler.passes.nodes import Nodes
from poolc.compiler.passes.query_blocks import (
    MASK,
    Blocks,
    Length,
    in_blocks,
    input_of,
    length_of,
    mask_of,
    rank_of,
)

# Up to here one node is as fast as blocks, and its scores are small.
MAX_WHOLE_TOKENS = 1024
_BLOCK_ROWS = 256
# Local attention: blocks from texts of this many times what a query sees.
_LOCAL_SPANS = 2
_LOCAL_ROWS = 64
# Causal attention: a block leaves out the keys after it.
_CAUSAL_WHOLE_TOKENS = 384
_CAUSAL_ROWS = 128


class BlockAttentionPass(ir.passes.InPlacePass):
    """Block every ``Attention`` of the graph; ``record`` then says what could not be blocked.

    ``max_length`` is the longest text that the graph may get: what would run in one piece for all
    of them stays as it is.
    """

    def __init__(
        self,
        max_length: int,
        max_whole: int = MAX_WHOLE_TOKENS,
        block_rows: int = _BLOCK_ROWS,
    ) -> None:
        super().__init__()
        self.max_length, self.max_whole, self.block_rows = max_length, max_whole, block_rows
        self._blocked: Counter[Blocks] = Counter()
        self._left: list[str] = []  # what stayed as it was, and why
        self._whole_masks: list[str] = []  # made as a whole, for their rows are not understood

    @property
    def record(self) -> dict[str, Any]:
        """What was done to the last graph, for the manifest."""
        return {
            "max_whole_tokens": self.max_whole,
            "block_rows": self.block_rows,
            "blocked": self._blocked.total(),
            "layers": {
                str(blocks.reach): {
                    "layers": layers,
                    "max_whole_tokens": blocks.max_whole,
                    "block_rows": blocks.rows,
                }
                for blocks, layers in sorted(self._blocked.items(), key=lambda one: str(one[0]))
            },
            "left": self._left,
            "whole_masks": self._whole_masks,
        }

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        lengths: dict[tuple[str, Blocks], Length] = {}
        reaches: dict[ir.Value | None, Reach] = {None: EVERYTHING}
        graph = model.graph
        found = [node for node in graph if node.op_type == "Attention"]
        for mask in [mask_of(node) for node in found]:
            if mask not in reaches:  # before any node is replaced
                reaches[mask] = reach_of(graph, mask)
        for index, node in enumerate(found):
            blocks = self._blocks(reaches[mask_of(node)])
            if blocks.max_whole >= self.max_length:
                continue
            reason = _unfit(node)
            if reason is not None:
                self._left.append(f"{node.name}: {reason}")
                continue
            self._block(graph, node, self._length(graph, node, blocks, lengths), f"block_{index}")
            self._blocked[blocks] += 1
        if self.max_length > self.max_whole:
            scores = (node.name for node in graph if _is_scores(node))
            self._left += [f"{name}: not an Attention node" for name in scores]
        if self._blocked:
            RemoveUnusedNodesPass()(model)
        return ir.passes.PassResult(model, bool(self._blocked))

    def _blocks(self, reach: Reach) -> Blocks:
        """Return how attention of a reach is cut: the less a block reads, the sooner it pays."""
        span = reach.span
        if span is not None and _LOCAL_SPANS * span < self.max_whole:
            return Blocks(reach, _LOCAL_SPANS * span, min(_LOCAL_ROWS, self.block_rows))
        if reach == EVERYTHING:
            return Blocks(reach, self.max_whole, self.block_rows)
        whole = min(_CAUSAL_WHOLE_TOKENS, self.max_whole)
        return Blocks(reach, whole, min(_CAUSAL_ROWS, self.block_rows))

    def _block(self, graph: ir.Graph, node: ir.Node, length: Length, prefix: str) -> None:
        if node.outputs[0].dtype is None:  # a rewrite made it: as its queries are
            node.outputs[0].dtype = input_of(node, 0).dtype or ir.DataType.FLOAT
        before = Nodes(graph, prefix)
        mask = mask_of(node)
        long = in_blocks(graph, node, length, prefix)
        short = Nodes(graph, f"{prefix}_short")
        inputs = [*node.inputs[:MASK], self._short_mask(before, mask, length)]
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

    def _length(
        self,
        graph: ir.Graph,
        node: ir.Node,
        blocks: Blocks,
        lengths: dict[tuple[str, Blocks], Length],
    ) -> Length:
        query = input_of(node, 0)
        dim = _query_dim(query)
        name = dim if isinstance(dim, str) else str(query.name)
        if (name, blocks) not in lengths:
            nodes = Nodes(graph, f"length_{len(lengths)}")
            axis = rank_of(query) - 2
            size = nodes.add("Shape", query, start=axis, end=axis + 1)
            lengths[name, blocks] = length_of(nodes, nodes.add("Squeeze", size), blocks)
            graph.insert_before(node, nodes.made)
        return lengths[name, blocks]

    def _short_mask(self, nodes: Nodes, mask: ir.Value | None, length: Length) -> ir.Value | None:
        """Return the mask of short texts; of long ones its first row."""
        if mask is None:
            return None
        if mask not in length.short_masks:
            start = len(nodes.made)
            try:
                taken = MaskRows(nodes, length.short_rows).take(mask, rank_of(mask) - 2)
            except NotUnderstoodError as error:
                del nodes.made[start:]
                self._whole_masks.append(f"{mask.name}: {error} makes it")
                taken = mask
            length.short_masks[mask] = taken
        return length.short_masks[mask]


def _unfit(node: ir.Node) -> str | None:
    """Say why a node stays as it is; None where it can be blocked."""
    if node.domain or len(node.outputs) != 1 or any(node.inputs[MASK + 1 :]):
        return "it keeps keys and values of earlier calls"
    causal = node.attributes.get("is_causal")
    if causal is not None and causal.as_int():
        return "is_causal counts from the first query of a block"
    shapes = [value.shape for value in node.inputs[: MASK + 1] if value is not None]
    if any(shape is None for shape in shapes):
        return "its shapes are not known"
    if len(shapes) > MASK and shapes[MASK] is not None and len(shapes[MASK] or ()) < 2:
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


def _query_dim(query: ir.Value) -> int | str | None:
    assert query.shape is not None
    dim = query.shape[-2]
    return dim if isinstance(dim, int) else dim.value
