"""Nodes under construction: a list that a graph, or a branch or body of one, is then made of.

Values get names in order, so that a recompile writes the same bytes. Constants become initializers
of the outermost graph, which branches and bodies read as well.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from poolc.compiler.initializers import add_initializer


class Nodes:
    """Builds nodes in order. ``graph`` takes the constants, ``prefix`` starts every name."""

    def __init__(self, graph: ir.Graph, prefix: str) -> None:
        self.made: list[ir.Node] = []
        self._graph, self._prefix = graph, prefix

    def add(self, op: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """Append a node of one output, and return that."""
        node = ir.node(op, list(inputs), attributes or None)
        node.outputs[0].name = f"{self._prefix}_{len(self.made)}"
        self.made.append(node)
        return node.outputs[0]

    def repeat(self, node: ir.Node, inputs: list[ir.Value | None]) -> ir.Value:
        """Append a copy of a node of one output that reads other inputs; return its output."""
        copy = ir.Node(
            node.domain, node.op_type, inputs, list(node.attributes.values()), num_outputs=1
        )
        copy.outputs[0].name = f"{self._prefix}_{len(self.made)}"
        copy.outputs[0].dtype = node.outputs[0].dtype
        self.made.append(copy)
        return copy.outputs[0]

    def numbers(self, *numbers: int) -> ir.Value:
        """Return a constant vector of int64."""
        return self.constant(np.array(numbers, np.int64))

    def number(self, number: int) -> ir.Value:
        """Return a constant int64 scalar."""
        return self.constant(np.array(number, np.int64))

    def constant(self, array: npt.NDArray[np.int64]) -> ir.Value:
        """Return a constant, one for equal arrays."""
        name = "_".join(["const", *map(str, array.shape), "of", *map(str, array.reshape(-1))])
        found = self._graph.initializers.get(name)
        return add_initializer(self._graph, name, array) if found is None else found

    def subgraph(self, name: str, inputs: list[ir.Value], outputs: list[ir.Value]) -> ir.Graph:
        """Return a branch or body of everything that was built."""
        return ir.Graph(inputs, outputs, nodes=self.made, name=name)
