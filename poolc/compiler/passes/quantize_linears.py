"""Replace matrix products by integer ones, as ``quantize/schemes.py`` chose.

    x -> (x / c) -> QuantizeLinear -> MatMulIntegerToFloat (weights, scales, bias) -> y

With a scale for each token, y of scale 1 is multiplied by it afterwards. The division by
SmoothQuant's c goes into the norm before, where nothing else reads that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from poolc.compiler.initializers import add_initializer
from poolc.compiler.quantize.linears import Group, Linear, find_groups
from poolc.compiler.quantize.schemes import Array, Choice, Scheme, quantize_weights

_VENDOR = "com.microsoft"
_VENDOR_VERSION = 1
_NORMS = ("LayerNormalization", "RMSNormalization")
_TINY = 1e-8  # a row of zeros is divided by this


class QuantizeLinearsPass(ir.passes.InPlacePass):
    """Quantise the groups that ``choices`` names, with weights of ``levels`` steps a side."""

    def __init__(self, choices: Mapping[str, Choice], levels: int) -> None:
        super().__init__()
        self.choices = dict(choices)
        self.levels = levels

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        chosen = [
            group
            for group in find_groups(model.graph)
            if self.choices.get(group.name, _LEFT).scheme is not Scheme.FP32
        ]
        for index, group in enumerate(chosen):
            _Rewrite(model.graph, group, self.choices[group.name], self.levels, index).run()
        if chosen:
            model.graph.opset_imports[_VENDOR] = _VENDOR_VERSION
        return ir.passes.PassResult(model, bool(chosen))


_LEFT = Choice(Scheme.FP32, 0.0)


class _Rewrite:
    """One group's rewrite; new nodes stand before its first product."""

    def __init__(
        self, graph: ir.Graph, group: Group, choice: Choice, levels: int, index: int
    ) -> None:
        self._graph, self._group, self._choice, self._levels = graph, group, choice, levels
        self._prefix = f"int8_{index}"
        self._count = 0
        self._before = group.linears[0].node

    def run(self) -> None:
        x, smooth = self._group.x, self._choice.smooth
        if smooth is not None and not _fold(self._graph, self._group, smooth, self._prefix):
            x = self._add("Mul", x, self._constant(1 / smooth))
        one, scale = self._constant(np.float32(1.0)), None
        zero = self._constant(np.uint8(self._choice.zero_point))
        if self._choice.scheme is Scheme.ROW:
            scale = self._row_scales(x)
            x = self._add("QuantizeLinear", self._add("Div", x, scale), one, zero)
        else:
            one = self._constant(np.float32(self._choice.scale))
            x = self._add("QuantizeLinear", x, one, zero)
        for linear in self._group.linears:
            self._before = linear.node
            self._replace(linear, x, one, zero, scale)

    def _row_scales(self, x: ir.Value) -> ir.Value:
        last = self._constant(np.array([-1], np.int64))
        largest = self._add("ReduceMax", self._add("Abs", x), last, keepdims=1)
        floored = self._add("Max", largest, self._constant(np.float32(_TINY)))
        return self._add("Mul", floored, self._constant(np.float32(1 / 127)))

    def _replace(
        self, linear: Linear, x: ir.Value, one: ir.Value, zero: ir.Value, scale: ir.Value | None
    ) -> None:
        matrix, offsets = linear.matrix, linear.offsets
        if self._choice.smooth is not None:
            matrix = matrix * self._choice.smooth[:, None]
        weights = quantize_weights(matrix, self._levels)
        inputs = [
            *(x, self._constant(weights.values), one, self._constant(weights.scales), zero),
            self._constant(np.zeros(len(weights.scales), np.int8)),
        ]
        bias = None if offsets is None else self._constant(offsets)
        if scale is None and bias is not None:
            inputs.append(bias)
        y = self._add("MatMulIntegerToFloat", *inputs, domain=_VENDOR)
        if scale is not None:
            y = self._add("Mul", y, scale)
            y = y if bias is None else self._add("Add", y, bias)
        old = linear.output
        y.shape, y.type = old.shape, old.type
        y.name, old.name = old.name, f"{old.name}_fp32"  # graph outputs keep their names
        ir.convenience.replace_all_uses_with(old, y, replace_graph_outputs=True)

    def _add(self, op: str, *inputs: ir.Value, domain: str = "", **attributes: Any) -> ir.Value:
        node = ir.node(op, list(inputs), attributes or None, domain=domain)
        made = node.outputs[0]
        made.name = self._name()
        _describe(made, op, inputs)
        self._graph.insert_before(self._before, node)
        return made

    def _constant(self, value: npt.NDArray[Any] | np.generic) -> ir.Value:
        return add_initializer(self._graph, self._name(), np.asarray(value))

    def _name(self) -> str:
        self._count += 1
        return f"{self._prefix}_{self._count}"


def _fold(graph: ir.Graph, group: Group, smooth: Array, prefix: str) -> bool:
    """Divide the norm that makes the group's input, if only the group reads it; else say no."""
    node = group.x.producer()
    products = {linear.node for linear in group.linears}
    readers = {reader for reader, _ in group.x.uses()}
    if node is None or readers != products or group.x.is_graph_output():
        return False
    # A norm's scale and bias, or the weight that a norm in parts is multiplied by at its end.
    places = [1, 2] if node.op_type in _NORMS else [0, 1] if node.op_type == "Mul" else []
    values = {place: node.inputs[place] for place in places if place < len(node.inputs)}
    constants = {
        place: value.const_value.numpy()
        for place, value in values.items()
        if value is not None and value.const_value is not None
    }
    needed = len(values) if node.op_type in _NORMS else 1
    if len(constants) != needed or any(a.shape != smooth.shape for a in constants.values()):
        return False
    for place, constant in constants.items():
        divided = add_initializer(graph, f"{prefix}_norm_{place}", constant / smooth)
        node.replace_input_with(place, divided)
    return True


def _describe(made: ir.Value, op: str, inputs: tuple[ir.Value, ...]) -> None:
    """Say what a new value is: rewrites that come later ask where the tokens are."""
    if inputs[0].shape is None:
        return
    sizes = list(inputs[0].shape.dims)
    if op == "ReduceMax":
        sizes[-1] = 1
    elif op == "MatMulIntegerToFloat" and inputs[1].shape is not None:
        sizes[-1] = inputs[1].shape[-1]
    made.shape = ir.Shape(sizes)
    made.dtype = ir.DataType.UINT8 if op == "QuantizeLinear" else ir.DataType.FLOAT
