"""Attention reads and writes [batch, seq, heads * size]: no transposes around it.

    x -> Reshape -> Transpose -> Attention -> Transpose -> Reshape -> y
    x -> Attention (q_num_heads, kv_num_heads) -> y

A RotaryEmbedding between them takes the same layout.
"""

from __future__ import annotations

import onnx_ir as ir

from poolc.compiler.passes.rewrite import (
    Editor,
    RewritePass,
    attribute,
    dims,
    made_by,
    only_reader,
)

_SWAP = (0, 2, 1, 3)  # [batch, seq, heads, size] <-> [batch, heads, seq, size]
_MASKED = 4  # q, k, v, mask; more are a cache


class AttentionLayoutPass(RewritePass):
    """Give every Attention whose inputs were transposed the layout before that."""

    name = "attention_layout"

    def rewrite(self, node: ir.Node, editor: Editor) -> bool:
        if node.op_type != "Attention" or node.domain or len(node.outputs) != 1:
            return False
        inputs, rest = node.inputs[:3], node.inputs[3:]
        heads = [dims(value)[1:2] for value in inputs]
        if len(node.inputs) > _MASKED or any(not isinstance(h[0], int) for h in heads if h):
            return False
        if not all(heads) or not all(_is_swapped(value) for value in inputs):
            return False
        flat = [_flat(value, node, editor) for value in inputs]
        sizes = {"q_num_heads": heads[0][0], "kv_num_heads": heads[1][0]}
        kept = {
            name: node.attributes[name].value
            for name in node.attributes
            if name not in sizes and name != "qk_matmul_output_mode"
        }
        output = editor.add(node, "Attention", *flat, *rest, **sizes, **kept)
        _hand_on(node, output, editor)
        return True


def _is_swapped(value: ir.Value | None) -> bool:
    rotary = made_by(value, "RotaryEmbedding")
    node = made_by(rotary.inputs[0] if rotary else value, "Transpose")
    return node is not None and tuple(attribute(node, "perm")) == _SWAP


def _flat(value: ir.Value | None, before: ir.Node, editor: Editor) -> ir.Value:
    """Return [batch, seq, heads * size] of a swapped [batch, heads, seq, size]."""
    rotary = made_by(value, "RotaryEmbedding")
    swap = made_by(rotary.inputs[0] if rotary else value, "Transpose")
    if value is None or swap is None or swap.inputs[0] is None:
        raise ValueError("an input of Attention is not transposed; this is a bug in poolc")
    split: ir.Value = swap.inputs[0]
    reshape = made_by(split, "Reshape")
    whole = None if reshape is None else reshape.inputs[0]
    if whole is None or not _is_split(whole, split):
        whole = editor.add(before, "Reshape", split, editor.ints(0, 0, -1))
        _describe(whole, split)
    if rotary is None:
        return whole
    kept = {name: rotary.attributes[name].value for name in rotary.attributes}
    kept["num_heads"] = dims(value)[1]
    turned = editor.add(before, "RotaryEmbedding", whole, *rotary.inputs[1:], **kept)
    turned.shape, turned.type = whole.shape, whole.type
    return turned


def _describe(flat: ir.Value, split: ir.Value) -> None:
    """Say what [batch, seq, heads * size] is, by [batch, seq, heads, size]."""
    flat.type = split.type
    sizes = split.shape.dims if split.shape is not None else ()
    fixed = [size for size in sizes[2:] if isinstance(size, int)]
    if len(sizes) == 4 and len(fixed) == 2:
        flat.shape = ir.Shape([*sizes[:2], fixed[0] * fixed[1]])


def _is_split(whole: ir.Value, split: ir.Value) -> bool:
    """Whether [batch, seq, heads, size] is [batch, seq, heads * size] with its last axis split."""
    outer, inner = dims(whole), dims(split)
    if len(outer) != 3 or len(inner) != 4 or outer[:2] != inner[:2]:
        return False
    sizes = (outer[2], *inner[2:])
    return all(isinstance(n, int) for n in sizes) and sizes[0] == sizes[1] * sizes[2]


def _hand_on(node: ir.Node, flat: ir.Value, editor: Editor) -> None:
    """Let the readers of the old Attention's [batch, heads, seq, size] read the flat output."""
    old: ir.Value = node.outputs[0]
    heads, size = dims(old)[1], dims(old)[3]
    swap = only_reader(old)
    if swap is None or swap.op_type != "Transpose" or tuple(attribute(swap, "perm")) != _SWAP:
        split = editor.add(node, "Reshape", flat, editor.ints(0, 0, heads, -1))
        editor.replace(old, editor.add(node, "Transpose", split, perm=_SWAP))
        return
    split = swap.outputs[0]
    _describe(flat, split)
    reshape = only_reader(split)
    whole = None if reshape is None or reshape.op_type != "Reshape" else reshape.outputs[0]
    if whole is not None and isinstance(size, int) and _is_split(whole, split):
        editor.replace(whole, flat)
    else:
        editor.replace(split, editor.add(swap, "Reshape", flat, editor.ints(0, 0, heads, -1)))
