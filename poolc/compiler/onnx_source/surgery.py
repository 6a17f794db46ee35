"""A shipped graph -> the canonical one: heads attached, inputs and outputs named and shaped."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes.common import (
    InlinePass,
    LiftConstantsToInitializersPass,
    RemoveInitializersFromInputsPass,
)

from poolc.compiler.canonical import BATCH, IR_VERSION, SEQ
from poolc.compiler.onnx_source import graph_heads
from poolc.compiler.onnx_source.checks import opset_of
from poolc.compiler.onnx_source.graph_heads import Nodes
from poolc.compiler.onnx_source.layers import load_layers
from poolc.compiler.onnx_source.shipped import Shipped
from poolc.spec import (
    ATTENTION_MASK,
    INPUT_IDS,
    LOGITS,
    POOLED,
    PROBS,
    SENTENCE_EMBEDDING,
    TOKEN_EMBEDDINGS,
    Activation,
    Kind,
    ModelSpec,
)


def attach_heads(shipped: Shipped, spec: ModelSpec, folder: Path) -> ir.Model:
    """Return the graph with the outputs of ``spec``'s kind; ``shipped`` stays as it is.

    Raises CorruptWeights for the weights of a module behind pooling.
    """
    model = shipped.model.clone()
    passes = (
        InlinePass(),
        RemoveInitializersFromInputsPass(),
        # Large constants become weights that the artifact's graphs share.
        LiftConstantsToInitializersPass(),
    )
    for change in passes:
        model = change(model).model
    model.ir_version = IR_VERSION
    graph = model.graph
    outputs = {str(value.name): value for value in graph.outputs}
    _free_names(graph)
    nodes = Nodes(graph, opset_of(model))
    _name_inputs(graph, nodes, spec)
    if spec.kind is Kind.CLASSIFIER:
        made = _classifier(nodes, outputs[str(shipped.logits)], spec)
    else:
        made = _embedding(nodes, shipped, spec, folder, outputs)
    graph.outputs.clear()
    graph.outputs.extend(
        _output(nodes, name, value, shape) for name, (value, shape) in made.items()
    )
    return model


Made = dict[str, tuple[ir.Value, list[int | str]]]


def _classifier(nodes: Nodes, value: ir.Value, spec: ModelSpec) -> Made:
    logits = nodes.as_float(value)
    probs = graph_heads.activate(nodes, spec.activation or Activation.IDENTITY, logits)
    shape: list[int | str] = [BATCH, len(spec.labels)]
    return {LOGITS: (logits, shape), PROBS: (probs, shape)}


def _embedding(
    nodes: Nodes, shipped: Shipped, spec: ModelSpec, folder: Path, outputs: dict[str, ir.Value]
) -> Made:
    """Pool the token vectors; a graph without them keeps the vector that it made itself."""
    made: Made = {}
    if shipped.tokens is None:
        pooled = nodes.as_float(outputs[str(shipped.sentence)])
    else:
        hidden = nodes.as_float(outputs[shipped.tokens])
        made[TOKEN_EMBEDDINGS] = (hidden, [BATCH, SEQ, spec.hidden_size])
        if spec.kind is Kind.REWARD:
            return made
        mask = next(v for v in hidden.graph.inputs if v.name == ATTENTION_MASK)
        pooled = graph_heads.pool(nodes, hidden, mask, spec.pooling, spec.hidden_size)
        pooled = graph_heads.apply(nodes, load_layers(spec.layers, folder), pooled)
    unit = graph_heads.normalize(nodes, pooled) if spec.normalize else pooled
    shape: list[int | str] = [BATCH, spec.embedding_size or spec.hidden_size]
    return {POOLED: (pooled, shape), SENTENCE_EMBEDDING: (unit, shape), **made}


def _output(nodes: Nodes, name: str, value: ir.Value, shape: list[int | str]) -> ir.Value:
    # A value of its own: two outputs may be one value, or one that others read.
    output = nodes.add("Identity", value)
    output.name, output.shape = name, ir.Shape(shape)
    output.type = ir.TensorType(ir.DataType.FLOAT)
    return output


def _free_names(graph: ir.Graph) -> None:
    """Rename what the graph computes, so that no name meets one of ours."""
    for node in graph.all_nodes():
        for value in node.outputs:
            if value.name:
                value.name = f"shipped/{value.name}"


def _name_inputs(graph: ir.Graph, nodes: Nodes, spec: ModelSpec) -> None:
    """Put the inputs in the order of the spec; one that the tokenizer never fills is zeros."""
    inputs = {str(value.name): value for value in graph.inputs}
    for name in inputs.keys() - set(spec.inputs):
        ids, first = inputs[INPUT_IDS], graph[0]
        zeros = ir.node("Sub", [ids, ids])
        zeros.outputs[0].name = f"poolc_no_{name}"
        graph.insert_before(first, zeros)
        inputs[name].replace_all_uses_with(zeros.outputs[0])
    graph.inputs.clear()
    graph.inputs.extend(inputs[name] for name in spec.inputs)
    for value in graph.inputs:
        value.shape = ir.Shape([BATCH, SEQ])
