"""The constants of a graph, wherever it holds them: weights, attributes, subgraphs, functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import onnx_ir as ir

# Smaller ones stay inside the graphs that are made of it.
_SMALL_BYTES = 4096

Change = Callable[[ir.TensorProtocol], ir.TensorProtocol | None]


def read_small(model: ir.Model) -> None:
    """Read small constants that lie in files of the model, which an artifact does not have."""

    def read(tensor: ir.TensorProtocol) -> ir.TensorProtocol | None:
        if not isinstance(tensor, ir.ExternalTensor) or tensor.nbytes >= _SMALL_BYTES:
            return None
        return ir.Tensor(tensor.numpy().copy(), dtype=tensor.dtype, name=tensor.name)

    replace(model, read)


def replace(model: ir.Model, change: Change) -> bool:
    """Put what ``change`` returns in a constant's place, None to keep it; say whether any was."""
    found = False
    for graph in graphs(model):
        weights = graph.initializers.values() if isinstance(graph, ir.Graph) else ()
        for weight in weights:
            new = change(weight.const_value) if weight.const_value is not None else None
            if new is not None:
                weight.const_value = new
                found = True
        for node in graph:
            found |= _replace_attributes(node, change)
    return found


def graphs(model: ir.Model) -> Iterator[ir.Graph | ir.Function]:
    """Yield the graph, its functions, and the graphs inside them."""
    for top in (model.graph, *model.functions.values()):
        yield top
        for node in top.all_nodes():
            for attribute in node.attributes.values():
                if attribute.type is ir.AttributeType.GRAPH:
                    yield attribute.as_graph()


def _replace_attributes(node: ir.Node, change: Change) -> bool:
    changed = {
        name: new
        for name, attribute in node.attributes.items()
        if attribute.type is ir.AttributeType.TENSOR
        and (new := change(attribute.as_tensor())) is not None
    }
    for name, tensor in changed.items():
        node.attributes[name] = ir.AttrTensor(name, tensor)
    return bool(changed)
