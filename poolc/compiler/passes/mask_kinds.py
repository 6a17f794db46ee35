"""What an attention mask says, found by computing a few of its rows: all keys, the past, or else.

Masks are built in too many ways to be told by their nodes. Rows are computed for texts as long as
the model takes, so that a window that only bites on long ones is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from poolc.compiler.passes.mask_rows import MaskRows, NotUnderstoodError
from poolc.compiler.passes.nodes import Nodes
from poolc.spec import ATTENTION_MASK

Evaluate = Callable[[ir.Model, Mapping[str, npt.NDArray[np.int64]]], npt.NDArray[Any]]
"""Runs a graph of one output."""

_LONGEST = 1 << 15  # tokens; a model that takes more is looked at up to here
_NOTHING = -1e4  # what is added to a logit that does not count is below this


class MaskKind(StrEnum):
    """Which keys a real token sees."""

    KEYS = "keys"  # every real token of its text
    CAUSAL = "causal"  # those up to itself


def mask_kind(
    model: ir.Model, mask: ir.Value, max_length: int, evaluate: Evaluate
) -> MaskKind | None:
    """Return the kind of ``mask`` in texts padded on the right; None where it is another."""
    seq = max(4, min(max_length, _LONGEST))
    lengths = [seq, max(1, seq // 3), seq - 1]
    rows = sorted({0, 1, seq // 3 - 1, seq // 2, seq - 2, seq - 1})
    try:
        found = _rows(model, mask, seq, lengths, rows, evaluate)
    except NotUnderstoodError:
        return None
    if found is None:
        return None
    columns = np.arange(seq)
    possible = list(MaskKind)
    for text, length in enumerate(lengths):
        for place, row in enumerate(rows):
            if row >= length:
                continue  # what padding sees does not matter
            seen = found[text, :, place]
            wanted = {MaskKind.KEYS: columns < length, MaskKind.CAUSAL: columns <= row}
            possible = [kind for kind in possible if bool((seen == wanted[kind]).all())]
    return possible[0] if len(possible) == 1 else None


def _rows(
    model: ir.Model,
    mask: ir.Value,
    seq: int,
    lengths: list[int],
    rows: list[int],
    evaluate: Evaluate,
) -> npt.NDArray[np.bool_] | None:
    """Return which keys those rows see [texts, heads, rows, seq]; None for more than yes and no."""
    copy = model.clone()
    same = next(v for node in copy.graph for v in node.outputs if v.name == mask.name)
    if same.shape is None or len(same.shape) != 4:
        return None
    nodes = Nodes(copy.graph, "mask_kind")
    taken = MaskRows(nodes, nodes.numbers(*rows)).take(same, 2)
    copy.graph.extend(nodes.made)
    taken.dtype = taken.dtype or same.dtype
    copy.graph.outputs.clear()
    copy.graph.outputs.append(taken)
    RemoveUnusedNodesPass()(copy)
    keys = (np.arange(seq) < np.array(lengths)[:, None]).astype(np.int64)
    feeds = {str(v.name): np.ones_like(keys) for v in copy.graph.inputs}
    found = evaluate(copy, {**feeds, ATTENTION_MASK: keys})
    if found.dtype != np.bool_:
        values = np.unique(found)
        if not (len(values) == 2 and values[1] == 0 and values[0] < _NOTHING):
            return None
        found = found == 0
    heads, given = found.shape[1], found.shape[2]
    if given not in (1, len(rows)):
        return None
    return np.broadcast_to(found, (len(lengths), heads, len(rows), seq))
