"""What targets that write ONNX files have in common: which graphs, their names, their interface."""

from __future__ import annotations

import onnx_ir as ir

from poolc.compiler.targets.base import Lowerable
from poolc.model_cache.manifest import GraphInfo, TensorInfo
from poolc.spec import MAIN_SET, TOKENS_SET, ModelSpec, output_sets


def output_graphs(source: Lowerable, spec: ModelSpec) -> tuple[dict[str, tuple[str, ...]], bool]:
    """Return the outputs of each graph to write, and whether one has token vectors."""
    sets = output_sets(spec)
    graphs = [graph.graph for graph in source.canonical.values()]
    present = {value.name for graph in graphs for value in graph.outputs}
    tokens = sets.pop(TOKENS_SET)
    has_tokens = present.issuperset(tokens)  # graphs that a model ships may hide them
    if has_tokens and tokens != sets[MAIN_SET]:
        sets[TOKENS_SET] = tokens
    return sets, has_tokens


def graph_file(output_set: str) -> str:
    """Return the name of the file of an output set's graph."""
    return "model.onnx" if output_set == MAIN_SET else f"model.{output_set}.onnx"


def graph_info(file: str, model: ir.Model) -> GraphInfo:
    """Return a graph's entry of the manifest."""
    return GraphInfo(
        file=file,
        inputs=tuple(_tensor_info(value) for value in model.graph.inputs),
        outputs=tuple(_tensor_info(value) for value in model.graph.outputs),
    )


def _tensor_info(value: ir.Value) -> TensorInfo:
    shape = value.shape.dims if value.shape is not None else ()
    dims = tuple(dim if isinstance(dim, int) else str(dim.value) for dim in shape)
    dtype = ir.DataType(value.dtype).numpy().name if value.dtype is not None else "unknown"
    return TensorInfo(str(value.name), dtype, dims)
