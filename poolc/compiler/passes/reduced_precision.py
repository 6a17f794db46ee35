"""The trunk in fp16 or bf16; heads stay in fp32.

The trunk is what lies between the look-up of the token embeddings and the last hidden states. What
there is besides (masks, positions, rotary angles) stays as it is and is cast where the trunk reads
it; everything behind the last hidden states is the head. Reductions that a family writes out by
hand (a norm of its own, a softmax) run in fp32 between two casts: sums of squares of activations
overflow fp16. The library's own norms, softmax and attention add in fp32 by themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from poolc.compiler.initializers import add_initializer
from poolc.spec import TOKEN_EMBEDDINGS, Precision

_TYPES = {
    Precision.FP16: (ir.DataType.FLOAT16, np.dtype(np.float16)),
    Precision.BF16: (ir.DataType.BFLOAT16, np.dtype(ml_dtypes.bfloat16)),
}
# Computed in fp32 where a graph has them outside of a norm or attention of the standard.
_EXACT = frozenset(
    (
        *("Pow", "Sqrt", "Reciprocal", "Exp", "Log", "Softmax", "LogSoftmax", "CumSum", "Softplus"),
        *("ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL2", "ReduceMax"),
        *("Sin", "Cos"),
    )
)
# ONNX Runtime's kernels for CUDA are in fp32 and fp16. Queries, keys and values are far from
# fp16's range, and it is the more precise one.
_ONLY_HALF = frozenset({"PackedMultiHeadAttention"})


class ReducedPrecisionPass(ir.passes.InPlacePass):
    """Run the trunk in ``precision``; changes nothing where a graph names no last hidden states.

    ``exact``: further operators that are computed in fp32, between casts.
    """

    def __init__(self, precision: Precision, exact: frozenset[str] = frozenset()) -> None:
        super().__init__()
        self._type, self._dtype = _TYPES[precision]
        self._exact = _EXACT | exact

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        graph = model.graph
        hidden = _hidden(graph)
        trunk = _trunk(graph, hidden)
        if hidden is None or not trunk:
            return ir.passes.PassResult(model, False)
        _Rewriting(self._type, self._dtype, graph, _Trunk(trunk, self._exact)).run(hidden)
        RemoveUnusedNodesPass()(model)  # weights in fp32 that nothing reads any more
        return ir.passes.PassResult(model, True)


@dataclass(frozen=True, slots=True)
class _Trunk:
    """The nodes of the trunk, and the operators among them that stay in fp32."""

    nodes: set[ir.Node]
    exact: frozenset[str]


class _Rewriting:
    def __init__(
        self, to: ir.DataType, dtype: np.dtype[Any], graph: ir.Graph, trunk: _Trunk
    ) -> None:
        self._type, self._dtype = to, dtype
        self._graph, self._trunk, self._exact = graph, trunk.nodes, trunk.exact
        self._cast: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self._low: set[ir.Value] = set()  # values that have become low

    def run(self, hidden: ir.Value) -> None:
        readers = list(hidden.uses())
        for node in list(self._graph):
            if node in self._trunk:
                self._rewrite(node)
        self._raise(hidden, readers)
        self._raise_what_else_is_read(hidden)

    def _rewrite(self, node: ir.Node) -> None:
        if node.op_type in _ONLY_HALF and self._type is ir.DataType.BFLOAT16:
            self._in_half(node)
            return
        if node.op_type == "Cast":
            self._retype_cast(node)
        elif node.op_type in self._exact and not node.domain:
            self._stay_exact(node)
        else:
            self._become_low(node)

    def _become_low(self, node: ir.Node) -> None:
        for place, value in enumerate(node.inputs):
            if value is not None and value.dtype == ir.DataType.FLOAT and value not in self._low:
                node.replace_input_with(place, self._lowered(value, node))
        for output in node.outputs:
            if self._is_float(output):
                output.type = ir.TensorType(self._type)  # a clone shares the old one
                self._low.add(output)

    def _stay_exact(self, node: ir.Node) -> None:
        for place, value in enumerate(node.inputs):
            if value in self._low:
                node.replace_input_with(place, self._as(value, ir.DataType.FLOAT, node))
        for output in node.outputs:
            if self._is_float(output):
                self._lower_output(node, output)

    def _lower_output(self, node: ir.Node, output: ir.Value) -> None:
        """Cast what was computed in fp32, unless only such operators read it."""
        for reader, place in list(output.uses()):
            if reader.op_type in self._exact and not reader.domain:
                continue
            reader.replace_input_with(place, self._as(output, self._type, after=node))

    def _in_half(self, node: ir.Node) -> None:
        """Run a node in fp16 between casts: it has no kernel in bf16."""
        half = ir.DataType.FLOAT16
        for place, value in enumerate(node.inputs):
            if value is not None and self._is_float(value):
                node.replace_input_with(place, self._as(value, half, node))
        output = node.outputs[0]
        readers = list(output.uses())
        output.type = ir.TensorType(half)
        raised = self._as(output, self._type, after=node)
        for reader, place in readers:
            reader.replace_input_with(place, raised)

    def _retype_cast(self, node: ir.Node) -> None:
        """A cast to fp32 in the trunk is one to its precision now; others keep what they say."""
        if node.attributes["to"].as_int() == ir.DataType.FLOAT:
            node.attributes["to"] = ir.AttrInt64("to", int(self._type))
            node.outputs[0].type = ir.TensorType(self._type)
            self._low.add(node.outputs[0])

    def _is_float(self, value: ir.Value) -> bool:
        return value in self._low or value.dtype == ir.DataType.FLOAT

    def _lowered(self, value: ir.Value, node: ir.Node) -> ir.Value:
        """Return a value of fp32 in the trunk's precision: a constant as another constant."""
        key = (value, self._type)
        tensor = value.const_value
        if tensor is None or not value.is_initializer():
            return self._as(value, self._type, node)
        if key not in self._cast:
            name = f"{value.name}.{self._dtype.name}"
            self._cast[key] = add_initializer(self._graph, name, self._rounded(tensor.numpy()))
            self._low.add(self._cast[key])
        return self._cast[key]

    def _rounded(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """What stands for "nothing" in a mask, the lowest number of fp32, is no infinity then: a
        softmax over nothing else would be no number.
        """
        limits = ml_dtypes.finfo(self._dtype)  # type: ignore[no-untyped-call]
        is_finite = np.isfinite(array)
        bounded = np.clip(array, float(limits.min), float(limits.max))
        return np.where(is_finite, bounded, array).astype(self._dtype)

    def _as(
        self,
        value: ir.Value,
        to: ir.DataType,
        before: ir.Node | None = None,
        *,
        after: ir.Node | None = None,
    ) -> ir.Value:
        key = (value, to)
        if key in self._cast:
            return self._cast[key]
        cast = ir.node("Cast", [value], {"to": int(to)})
        made = cast.outputs[0]
        made.name = f"{value.name}.{to.name.lower()}"
        made.shape, made.dtype = value.shape, to
        producer = value.producer() if after is None else after
        if producer is not None:
            self._graph.insert_after(producer, cast)
        elif before is not None:  # an input of the graph: read from here on
            self._graph.insert_before(self._graph[0], cast)
        self._cast[key] = made
        if to == self._type:
            self._low.add(made)
        return made

    def _raise(self, hidden: ir.Value, readers: Iterable[tuple[ir.Node, int]]) -> None:
        """Give the last hidden states to everything behind the trunk in fp32, by their name."""
        name, shape = hidden.name, hidden.shape
        cast = ir.node("Cast", [hidden], {"to": int(ir.DataType.FLOAT)})
        raised = cast.outputs[0]
        raised.name, hidden.name = name, f"{name}.{self._type.name.lower()}"
        raised.shape, raised.dtype = shape, ir.DataType.FLOAT
        producer = hidden.producer()
        if producer is None:
            raise ValueError("the last hidden states are an input; this is a bug in poolc")
        self._graph.insert_after(producer, cast)
        for node, place in readers:
            if node not in self._trunk:
                node.replace_input_with(place, raised)
        for place, output in enumerate(self._graph.outputs):
            if output is hidden:
                self._graph.outputs[place] = raised

    def _raise_what_else_is_read(self, hidden: ir.Value) -> None:
        for value in [v for node in self._trunk for v in node.outputs if v in self._low]:
            for node, place in list(value.uses()):
                outside = node not in self._trunk and node.op_type != "Cast"
                if outside and value is not hidden:
                    node.replace_input_with(place, self._as(value, ir.DataType.FLOAT))


def _hidden(graph: ir.Graph) -> ir.Value | None:
    """Return the last hidden states; None of a graph that does not name them."""
    return next(
        (value for node in graph for value in node.outputs if value.name == TOKEN_EMBEDDINGS), None
    )


def _trunk(graph: ir.Graph, hidden: ir.Value | None) -> set[ir.Node]:
    """Return the nodes that depend on token embeddings and that the hidden states depend on."""
    if hidden is None:
        return set()
    above: set[ir.Node] = set()
    waiting = [hidden.producer()]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in above:
            above.add(node)
            waiting += [value.producer() for value in node.inputs if value is not None]
    fed: set[ir.Value] = set(graph.inputs)
    embedded: set[ir.Value] = set()
    trunk: set[ir.Node] = set()
    for node in graph:
        if node not in above:
            continue
        if any(value in fed for value in node.inputs):
            fed.update(node.outputs)
        if node.op_type in ("Shape", "Size"):
            continue  # sizes of activations make masks and positions, which are none
        if _looks_up(node, fed) or any(value in embedded for value in node.inputs):
            trunk.add(node)
            embedded.update(node.outputs)
    return trunk | set(_dequantized(trunk))


def _dequantized(trunk: set[ir.Node]) -> Iterator[ir.Node]:
    """Yield what makes numbers of the trunk's quantised weights: they are read in its precision."""
    for node in trunk:
        for value in node.inputs:
            producer = None if value is None else value.producer()
            if producer is not None and producer.op_type == "DequantizeLinear":
                packed = producer.inputs[0]
                if packed is not None and packed.const_value is not None:
                    yield producer


def _looks_up(node: ir.Node, fed: set[ir.Value]) -> bool:
    """Whether a node takes rows of a table of floats by what the graph is fed."""
    if node.op_type != "Gather" or node.domain:
        return False
    table, indices = node.inputs[0], node.inputs[1]
    is_table = table is not None and table.const_value is not None
    return (
        is_table and table.dtype == ir.DataType.FLOAT and indices in fed and len(table.shape) == 2
    )
