"""Some rows of an attention mask, without the mask: what makes it, repeated for those rows only.

Masks and biases are elementwise over what depends on the query's position and what depends on the
key's: taking rows of the result is taking them of the first kind, which is small.
"""

from __future__ import annotations

import onnx_ir as ir

from poolc.compiler.passes.nodes import Nodes

_ELEMENTWISE = frozenset(
    {
        *("Abs", "Cast", "Ceil", "Exp", "Floor", "Identity", "Log", "Neg", "Not", "Sign", "Sqrt"),
        *("Add", "Clip", "Div", "Max", "Min", "Mul", "Pow", "Sub"),
        *("And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Or", "Where", "Xor"),
    }
)


class NotUnderstoodError(Exception):
    """The rows cannot be had without the whole mask; the message says which node makes it so."""


class MaskRows:
    """Builds the rows ``rows`` ([n] of int64) of masks with ``nodes``; shared parts once."""

    def __init__(self, nodes: Nodes, rows: ir.Value) -> None:
        self._nodes, self._rows = nodes, rows
        self._taken: dict[tuple[ir.Value, int], ir.Value] = {}

    def take(self, value: ir.Value, axis: int) -> ir.Value:
        """Return ``value`` with only those rows of ``axis``, counted from the front.

        Raises NotUnderstoodError.
        """
        key = (value, axis)
        if key not in self._taken:
            self._taken[key] = self._take(value, axis)
        return self._taken[key]

    def gather(self, value: ir.Value, axis: int) -> ir.Value:
        """Return those rows of a value that is there as a whole."""
        return self._nodes.add("Gather", value, self._rows, axis=axis)

    def _take(self, value: ir.Value, axis: int) -> ir.Value:
        dims = _dims(value)
        if dims[axis] == 1:
            return value  # the same for all rows
        node = value.producer()
        if node is None or sum(not isinstance(dim, int) for dim in dims) <= 1:
            return self.gather(value, axis)  # an input or a vector: small as a whole
        if node.domain or len(node.outputs) != 1:
            raise NotUnderstoodError(f"{node.domain or 'ai.onnx'}.{node.op_type}")
        if node.op_type in _ELEMENTWISE:
            return self._elementwise(node, len(dims), axis)
        if node.op_type in ("Unsqueeze", "Reshape"):
            return self._ones_inserted(node, dims, axis)
        if node.op_type == "Transpose":
            return self._transpose(node, axis)
        if node.op_type == "Gather":
            return self._gather_of(node, axis)
        raise NotUnderstoodError(node.op_type)

    def _elementwise(self, node: ir.Node, rank: int, axis: int) -> ir.Value:
        inputs: list[ir.Value | None] = []
        for value in map(_unexpanded, node.inputs):
            own = axis - rank + (0 if value is None else len(_dims(value)))
            inputs.append(value if value is None or own < 0 else self.take(value, own))
        return self._nodes.repeat(node, inputs)

    def _ones_inserted(self, node: ir.Node, dims: list[int | str | None], axis: int) -> ir.Value:
        """Take the rows before axes of size 1 are put between the others."""
        source = node.inputs[0]
        inserted = None if source is None else _inserted(_dims(source), dims)
        if source is None or inserted is None or axis in inserted:
            raise NotUnderstoodError(f"{node.op_type} to {dims}")
        taken = self.take(source, axis - sum(one < axis for one in inserted))
        return self._nodes.add("Unsqueeze", taken, self._nodes.numbers(*inserted))

    def _transpose(self, node: ir.Node, axis: int) -> ir.Value:
        order = node.attributes.get("perm")
        source = node.inputs[0]
        if order is None or source is None:
            raise NotUnderstoodError("Transpose without an order")
        return self._nodes.repeat(node, [self.take(source, order.as_ints()[axis])])

    def _gather_of(self, node: ir.Node, axis: int) -> ir.Value:
        """Take the rows of the indices of a look-up: buckets of distances, as T5 has."""
        table, indices = node.inputs
        looked_up = node.attributes.get("axis")
        if table is None or indices is None or (looked_up and looked_up.as_int() != 0):
            raise NotUnderstoodError("Gather of another axis than the first")
        if axis >= len(_dims(indices)) or table.const_value is None:
            raise NotUnderstoodError("Gather of what is computed")
        return self._nodes.repeat(node, [table, self.take(indices, axis)])


def _dims(value: ir.Value) -> list[int | str | None]:
    """Return the sizes of a value: numbers, names, or None for an unnamed one."""
    if value.shape is None:
        raise NotUnderstoodError(f"{value.name}, whose shape is not known,")
    return [dim if isinstance(dim, int) else dim.value for dim in value.shape.dims]


def _unexpanded(value: ir.Value | None) -> ir.Value | None:
    """Return the number that a whole matrix was filled with, else the value."""
    node = None if value is None else value.producer()
    source = node.inputs[0] if node is not None and node.op_type == "Expand" else None
    return value if source is None or _dims(source) else source


def _inserted(before: list[int | str | None], after: list[int | str | None]) -> list[int] | None:
    """Return where sizes of 1 were put in; None where anything else happened."""
    found, left = [], list(before)
    for axis, dim in enumerate(after):
        if left and dim is not None and dim == left[0]:
            left.pop(0)
        elif dim == 1:
            found.append(axis)
        else:
            return None
    return None if left else found
