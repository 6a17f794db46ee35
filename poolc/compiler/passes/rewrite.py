"""What rewrites share: new nodes and constants in a graph, and a pass over its nodes.

A rewrite keeps the names of the values that it replaces: outputs, and activations that the
quantiser knows by name.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from poolc.compiler.initializers import add_initializer

VENDOR = "com.microsoft"
_VENDOR_VERSION = 1
# Attention, RotaryEmbedding and RMSNormalization are standard operators from here on.
_OPSET = 23


class Editor:
    """Adds nodes and constants to a graph under names that start with ``prefix``."""

    def __init__(self, graph: ir.Graph, prefix: str) -> None:
        self.graph = graph
        self._prefix = prefix
        self._constants: dict[tuple[bytes, str, tuple[int, ...]], ir.Value] = {}
        names = {value.name for node in graph for value in node.outputs} | set(graph.initializers)
        self._count, self.has_added = 0, False
        while f"{prefix}_{self._count}" in names:  # the pass ran before
            self._count += 1

    def add(
        self,
        before: ir.Node,
        op: str,
        *inputs: ir.Value | None,
        domain: str = "",
        outputs: int = 1,
        **attributes: Any,
    ) -> ir.Value:
        """Insert a node and return its first output."""
        node = ir.node(op, list(inputs), attributes or None, domain=domain, num_outputs=outputs)
        for value in node.outputs:
            value.name = self._name()
        if domain == VENDOR:
            self.graph.opset_imports[VENDOR] = _VENDOR_VERSION
        self.graph.insert_before(before, node)
        first: ir.Value = node.outputs[0]
        return first

    def constant(self, array: npt.NDArray[Any] | np.generic) -> ir.Value:
        """Return an initializer; equal small ones are one."""
        array = np.ascontiguousarray(array).reshape(np.shape(array))
        key = (array.tobytes() if array.nbytes <= 256 else b"", array.dtype.str, array.shape)
        if key[0] and key in self._constants:
            return self._constants[key]
        value = add_initializer(self.graph, self._name(), array)
        self._constants[key] = value
        return value

    def ints(self, *values: int) -> ir.Value:
        """Return an int64 vector."""
        return self.constant(np.array(values, np.int64))

    def replace(self, old: ir.Value, new: ir.Value) -> None:
        """Let everything read ``new``, under the name of ``old``."""
        new.shape, new.type = old.shape, old.type
        new.name, old.name = old.name, self._name()
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)

    def _name(self) -> str:
        self._count, self.has_added = self._count + 1, True
        return f"{self._prefix}_{self._count}"


class RewritePass(ir.passes.InPlacePass):
    """Offers every node of the graph to ``rewrite``, then removes what nothing reads any more."""

    name = "rewrite"

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        editor, modified = Editor(model.graph, self.name), False
        if model.graph.opset_imports.get("", 0) < _OPSET:
            return ir.passes.PassResult(model, False)
        for node in list(model.graph):
            modified = self.rewrite(node, editor) or modified
        if modified or editor.has_added:  # also what was tried in vain
            model = RemoveUnusedNodesPass()(model).model
        return ir.passes.PassResult(model, modified)

    @abstractmethod
    def rewrite(self, node: ir.Node, editor: Editor) -> bool:
        """Replace what ``node`` ends, and say whether anything was."""


def made_by(value: ir.Value | None, op: str, domain: str = "") -> ir.Node | None:
    """Return the node that makes ``value`` if it is an ``op``."""
    node = None if value is None else value.producer()
    return node if node is not None and (node.op_type, node.domain) == (op, domain) else None


def constant(value: ir.Value | None) -> npt.NDArray[Any] | None:
    """Return a constant's numbers; None for what is computed or fed."""
    if value is None or value.const_value is None:
        return None
    array: npt.NDArray[Any] = value.const_value.numpy()
    return array


def attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    """Return an attribute's plain value."""
    found = node.attributes.get(name)
    return default if found is None else found.value


def dims(value: ir.Value | None) -> tuple[Any, ...]:
    """Return a shape's sizes, int or name; an unknown size equals no other."""
    if value is None or value.shape is None:
        return ()
    return tuple(
        dim if isinstance(dim, int) else object() if dim.value is None else dim.value
        for dim in value.shape.dims
    )


def only_reader(value: ir.Value) -> ir.Node | None:
    """Return the one node that reads ``value``, which is no output of the graph; else None."""
    uses = list(value.uses())
    return uses[0][0] if len(uses) == 1 and not value.is_graph_output() else None
