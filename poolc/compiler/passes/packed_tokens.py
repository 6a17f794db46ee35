"""Encoders without padding: the trunk computes the real tokens of all texts as one list.

    [batch, seq, hidden] -> Gather of the real tokens -> [tokens, hidden] -> layers
                         -> Gather of each text's tokens -> [batch, seq, hidden] -> head

Every operator between treats a token by itself, but for attention, which
``com.microsoft.PackedMultiHeadAttention`` computes text by text. The host says where the tokens
are, by four more inputs (``runtime/packing.py``). A graph is left as it is where anything else
mixes tokens, where attention is causal, windowed or biased by position, or its heads share keys.

Formulas of the biases: softmax over keys does not change when all of a query's logits do, so that
a bias of the keys has no effect; weights of values sum to 1, so that a bias of the values is one
of the output's, through its matrix.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from poolc.compiler.passes.mask_kinds import Evaluate, MaskKind, mask_kind
from poolc.compiler.passes.packable import (
    OF_VECTORS,
    NotPackableError,
    Projections,
    Region,
    find_region,
    is_vector,
)
from poolc.compiler.passes.rewrite import VENDOR, Editor, attribute, constant, dims, made_by
from poolc.spec import CU_SEQLENS, RESTORE_INDICES, TOKEN_INDICES, TOKEN_OFFSET

_TOKENS = "tokens"  # the symbolic dimension of the packed list
_INPUTS = {
    TOKEN_INDICES: [_TOKENS],
    TOKEN_OFFSET: ["batch", "seq"],
    CU_SEQLENS: ["batch_plus_1"],
    RESTORE_INDICES: ["batch", "seq"],
}


class PackedTokensPass(ir.passes.InPlacePass):
    """Pack the trunk of a model of texts of up to ``max_length`` tokens.

    ``evaluate`` computes masks, to look at them. ``why_not`` says, after a call that changed
    nothing, what was in the way.
    """

    def __init__(self, max_length: int, evaluate: Evaluate) -> None:
        super().__init__()
        self._max_length, self._evaluate = max_length, evaluate
        self.why_not: str | None = None

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        try:
            region = find_region(model.graph)
        except NotPackableError as error:
            self.why_not = str(error)
            return ir.passes.PassResult(model, False)
        for mask in region.masks():
            kind = mask_kind(model, mask, self._max_length, self._evaluate)
            if kind is not MaskKind.KEYS:
                self.why_not = "attention is causal, windowed or biased by position"
                return ir.passes.PassResult(model, False)
        _Packing(model.graph, region).run()
        RemoveUnusedNodesPass()(model)
        return ir.passes.PassResult(model, True)


class _Packing:
    def __init__(self, graph: ir.Graph, region: Region) -> None:
        self._graph, self._region = graph, region
        self._inside = frozenset(region.nodes)
        self._editor = Editor(graph, "packed")
        self._angles: dict[ir.Value, ir.Value] = {}
        self._fed: dict[str, ir.Value] = {}

    def run(self) -> None:
        for name, shape in _INPUTS.items():
            int32 = ir.TensorType(ir.DataType.INT32)
            self._fed[name] = ir.Value(name=name, shape=ir.Shape(shape), type=int32)
            self._graph.inputs.append(self._fed[name])
        self._pack_start()
        for node in self._region.nodes:
            if node.op_type == "RotaryEmbedding":
                self._rotate(node)
        for found in self._region.attentions:
            self._attend(found)
        for node in self._region.nodes:
            if node.op_type != "RotaryEmbedding":
                _flatten(node)
        self._restore_end()

    def _pack_start(self) -> None:
        start, first = self._region.start, self._region.nodes[0]
        packed = self._packed(start, first)
        for node, place in list(start.uses()):
            if node in self._inside:
                node.replace_input_with(place, packed)
        inner = [v for node in self._region.nodes for v in node.outputs]
        for value in (v for v in inner if v is not self._region.end):
            for node, place in list(value.uses()):
                if node not in self._inside:  # it asks for sizes: those before packing
                    node.replace_input_with(place, start)

    def _packed(self, value: ir.Value, before: ir.Node) -> ir.Value:
        """Return [tokens, size] of [batch, seq, size]."""
        size = dims(value)[2]
        flat = self._editor.add(before, "Reshape", value, self._editor.ints(-1, size))
        packed = self._editor.add(before, "Gather", flat, self._fed[TOKEN_INDICES], axis=0)
        for made, count in ((flat, None), (packed, _TOKENS)):
            made.shape, made.dtype = ir.Shape([count, size]), value.dtype
        return packed

    def _rotate(self, node: ir.Node) -> None:
        """Give a RotaryEmbedding the list of tokens as one text, and the angles of each of them."""
        x, old, one = node.inputs[0], node.outputs[0], self._editor.ints(0)
        for place in (1, 2):
            angles = node.inputs[place]
            if angles is None:
                raise ValueError("a rotation without angles; this is a bug in poolc")
            if angles not in self._angles:
                packed = self._packed(angles, node)
                row = self._editor.add(node, "Unsqueeze", packed, one)
                row.shape, row.dtype = ir.Shape([1, _TOKENS, dims(angles)[2]]), angles.dtype
                self._angles[angles] = row
            node.replace_input_with(place, self._angles[angles])
        row = self._editor.add(node, "Unsqueeze", x, one)
        row.dtype, row.shape = old.dtype, ir.Shape([1, _TOKENS, dims(old)[-1]])
        node.replace_input_with(0, row)
        readers = list(old.uses())
        turned = ir.node("Squeeze", [old, one])
        self._graph.insert_after(node, turned)
        new = turned.outputs[0]
        new.name, new.dtype = f"{old.name}.packed", old.dtype
        new.shape = ir.Shape([_TOKENS, dims(old)[-1]])
        for reader, place in readers:
            reader.replace_input_with(place, new)

    def _attend(self, found: Projections) -> None:
        """Put the packed attention in the place of one over [batch, seq, hidden]."""
        node, old = found.node, found.node.outputs[0]
        attributes = {"num_heads": attribute(node, "q_num_heads")}
        scale = attribute(node, "scale")
        if scale is not None:
            attributes["scale"] = scale
        if found.value_bias is not None and found.output is not None and found.matrix is not None:
            self._add_to_bias(found.output, found.value_bias @ found.matrix)
        # Rotated ones are what the rotation was replaced by.
        key = node.inputs[1] if made_by(found.key, "RotaryEmbedding") else found.key
        inputs = (node.inputs[0], key, found.value, None)
        made = self._editor.add(
            node,
            "PackedMultiHeadAttention",
            *(*inputs, self._fed[TOKEN_OFFSET], self._fed[CU_SEQLENS]),
            domain=VENDOR,
            **attributes,
        )
        width = dims(old)[-1]
        self._editor.replace(old, made)
        made.shape = ir.Shape([_TOKENS, width])

    def _add_to_bias(self, add: ir.Node, more: npt.NDArray[np.float32]) -> None:
        for place, operand in enumerate(add.inputs):
            bias = constant(operand)
            if bias is not None and is_vector(bias):
                total = self._editor.constant((bias + more).astype(np.float32))
                add.replace_input_with(place, total)
                return

    def _restore_end(self) -> None:
        """Give everything behind the trunk [batch, seq, hidden], under the old name."""
        end, last = self._region.end, self._region.end.producer()
        if last is None:
            raise ValueError("the last hidden states are an input; this is a bug in poolc")
        readers = list(end.uses())
        restored = ir.node("Gather", [end, self._fed[RESTORE_INDICES]], {"axis": 0})
        self._graph.insert_after(last, restored)
        value = restored.outputs[0]
        value.dtype, value.shape = end.dtype, ir.Shape(["batch", "seq", dims(end)[-1]])
        value.name, end.name = end.name, f"{end.name}.packed"
        for node, place in readers:
            node.replace_input_with(place, value)
        for place, output in enumerate(self._graph.outputs):
            if output is end:
                self._graph.outputs[place] = value


def _flatten(node: ir.Node) -> None:
    """Say that a node's outputs are a list of tokens now."""
    if node.op_type in OF_VECTORS:
        node.attributes["axis"] = ir.AttrInt64("axis", -1)
    for value in node.outputs:
        if value.shape is not None and len(value.shape) == 3:
            value.shape = ir.Shape([_TOKENS, *value.shape.dims[2:]])
