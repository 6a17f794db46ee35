"""Some rows of an attention mask, without the mask: what makes it, repeated for those rows only.

Masks and biases are elementwise over what depends on the query's position and what depends on the
key's: taking rows of the result is taking them of the first kind, which is small. Columns, where
only some keys are seen, are taken of the second kind.
"""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns from ``start`` to before ``end``, both [1] of int64."""

    start: ir.Value
    end: ir.Value


_Axes = tuple[int | None, int | None]  # of the rows and of the columns; None where it has none


class MaskRows:
    """Builds the rows ``rows`` ([n] of int64) of masks with ``nodes``; shared parts once.

    With ``columns`` only those of them, on the axis after that of the rows.
    """

    def __init__(self, nodes: Nodes, rows: ir.Value, columns: Columns | None = None) -> None:
        self._nodes, self._rows, self._columns = nodes, rows, columns
        self._taken: dict[tuple[ir.Value, _Axes], ir.Value] = {}

    def take(self, value: ir.Value, axis: int) -> ir.Value:
        """Return ``value`` with only those rows of ``axis``, counted from the front.

        Raises NotUnderstoodError.
        """
        return self._take(value, (axis, None if self._columns is None else axis + 1))

    def gather(self, value: ir.Value, axis: int) -> ir.Value:
        """Return those rows of a value that is there as a whole."""
        return self._nodes.add("Gather", value, self._rows, axis=axis)

    def cut(self, value: ir.Value, axis: int) -> ir.Value:
        """Return what lies in the columns of a value that is there as a whole."""
        if self._columns is None:
            return value
        axes = self._nodes.numbers(axis)
        return self._nodes.add("Slice", value, self._columns.start, self._columns.end, axes)

    def gather_mask(self, value: ir.Value, axis: int) -> ir.Value:
        """Return the rows, and of them the columns, of a mask that is there as a whole."""
        return self.cut(self.gather(value, axis), axis + 1)

    def _take(self, value: ir.Value, axes: _Axes) -> ir.Value:
        key = (value, axes)
        if key not in self._taken:
            self._taken[key] = self._made(value, axes)
        return self._taken[key]

    def _made(self, value: ir.Value, axes: _Axes) -> ir.Value:
        dims = _dims(value)
        row, column = (None if a is None or dims[a] == 1 else a for a in axes)
        node = value.producer()
        if row is None:  # the same for all rows: small as a whole
            return value if column is None else self.cut(value, column)
        if node is None or sum(not isinstance(dim, int) for dim in dims) <= 1:
            taken = self.gather(value, row)  # an input or a vector: small as a whole
            return taken if column is None else self.cut(taken, column)
        if node.domain or len(node.outputs) != 1:
            raise NotUnderstoodError(f"{node.domain or 'ai.onnx'}.{node.op_type}")
        if node.op_type in _ELEMENTWISE:
            return self._elementwise(node, len(dims), (row, column))
        if node.op_type in ("Unsqueeze", "Reshape"):
            return self._ones_inserted(node, dims, (row, column))
        if node.op_type == "Transpose":
            return self._transpose(node, (row, column))
        if node.op_type == "Gather":
            return self._gather_of(node, (row, column))
        raise NotUnderstoodError(node.op_type)

    def _elementwise(self, node: ir.Node, rank: int, axes: _Axes) -> ir.Value:
        inputs: list[ir.Value | None] = []
        for value in map(_unexpanded, node.inputs):
            missing = 0 if value is None else rank - len(_dims(value))
            inputs.append(value if value is None else self._take(value, _moved(axes, -missing)))
        return self._nodes.repeat(node, inputs)

    def _ones_inserted(self, node: ir.Node, dims: list[int | str | None], axes: _Axes) -> ir.Value:
        """Take the rows before axes of size 1 are put between the others."""
        source = node.inputs[0]
        inserted = None if source is None else _inserted(_dims(source), dims)
        if source is None or inserted is None or not set(inserted).isdisjoint(axes):
            raise NotUnderstoodError(f"{node.op_type} to {dims}")
        row, column = (
            None if axis is None else axis - sum(one < axis for one in inserted) for axis in axes
        )
        taken = self._take(source, (row, column))
        return self._nodes.add("Unsqueeze", taken, self._nodes.numbers(*inserted))

    def _transpose(self, node: ir.Node, axes: _Axes) -> ir.Value:
        order = node.attributes.get("perm")
        source = node.inputs[0]
        if order is None or source is None:
            raise NotUnderstoodError("Transpose without an order")
        row, column = (None if axis is None else order.as_ints()[axis] for axis in axes)
        return self._nodes.repeat(node, [self._take(source, (row, column))])

    def _gather_of(self, node: ir.Node, axes: _Axes) -> ir.Value:
        """Take the rows of the indices of a look-up: buckets of distances, as T5 has."""
        table, indices = node.inputs
        looked_up = node.attributes.get("axis")
        if table is None or indices is None or (looked_up and looked_up.as_int() != 0):
            raise NotUnderstoodError("Gather of another axis than the first")
        rank = len(_dims(indices))
        if any(axis is not None and axis >= rank for axis in axes) or table.const_value is None:
            raise NotUnderstoodError("Gather of what is computed")
        return self._nodes.repeat(node, [table, self._take(indices, axes)])


def _moved(axes: _Axes, by: int) -> _Axes:
    """Return the axes of a value of another rank; None for those that it does not have."""
    row, column = (None if axis is None or axis + by < 0 else axis + by for axis in axes)
    return row, column


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
