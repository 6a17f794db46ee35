"""Appends operators to a shipped graph, in the form that its opset has, 11 or later."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from poolc.compiler.initializers import add_initializer

# From which opset on these take their axes as an input.
_AXES_INPUT = {"ReduceSum": 13, "ReduceMax": 18}


class Nodes:
    """Appends nodes and constants to a graph."""

    def __init__(self, graph: ir.Graph, opset: int) -> None:
        self._graph = graph
        self._opset = opset
        self._count = 0

    def add(self, op: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        """Append a node with one output and return that."""
        node = ir.node(op, list(inputs), attributes or None)
        node.outputs[0].name = self._name()
        self._graph.append(node)
        return node.outputs[0]

    def constant(self, value: npt.ArrayLike, dtype: type = np.float32) -> ir.Value:
        """Add an initializer."""
        return add_initializer(self._graph, self._name(), np.asarray(value, dtype))

    def reduce(self, op: str, x: ir.Value, axis: int, *, keep: bool = False) -> ir.Value:
        """Append ReduceSum or ReduceMax over one axis."""
        if self._opset >= _AXES_INPUT[op]:
            return self.add(op, x, self.constant([axis], np.int64), keepdims=int(keep))
        return self.add(op, x, axes=[axis], keepdims=int(keep))

    def as_float(self, x: ir.Value) -> ir.Value:
        """Append a cast to fp32."""
        return self.add("Cast", x, to=int(ir.DataType.FLOAT))

    def _name(self) -> str:
        self._count += 1
        return f"poolc_{self._count}"
