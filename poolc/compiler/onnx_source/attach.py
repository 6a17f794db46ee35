"""Which heads a kind of model gets behind a shipped graph, and what they are called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from poolc.compiler.canonical import BATCH, SEQ
from poolc.compiler.onnx_source import graph_heads, graph_pooling
from poolc.compiler.onnx_source.graph_pooling import Tokens
from poolc.compiler.onnx_source.layers import load_layers
from poolc.compiler.onnx_source.nodes import Nodes
from poolc.compiler.onnx_source.shipped import Shipped
from poolc.spec import (
    ATTENTION_MASK,
    LOGITS,
    POOLED,
    POOLING_MASK,
    PROBS,
    SENTENCE_EMBEDDING,
    SPARSE_EMBEDDING,
    TOKEN_EMBEDDINGS,
    TOKEN_LOGITS,
    TOKEN_VECTORS,
    Activation,
    Kind,
    ModelSpec,
)

Made = dict[str, tuple[ir.Value, list[int | str]]]
"""Outputs in fp32 with their shapes, by name."""


@dataclass(frozen=True, slots=True)
class Trunk:
    """A shipped graph that nodes are appended to: its inputs and outputs by name."""

    nodes: Nodes
    shipped: Shipped
    inputs: Mapping[str, ir.Value]
    outputs: Mapping[str, ir.Value]

    def read(self, name: str | None) -> ir.Value:
        """Return an output in fp32; recognition has seen that it is there."""
        return self.nodes.as_float(self.outputs[str(name)])

    def tokens(self, vectors: ir.Value, width: int) -> Tokens:
        """Join vectors of tokens with the masks of their texts."""
        counted = self.inputs.get(POOLING_MASK)
        return Tokens(vectors, self.inputs[ATTENTION_MASK], width, counted)


def attach(trunk: Trunk, spec: ModelSpec, folder: Path) -> Made:
    """Append the heads of ``spec.kind``; their weights lie in ``folder``. Raises CorruptWeights."""
    made: Made = {}
    if trunk.shipped.tokens is not None:
        hidden = trunk.read(trunk.shipped.tokens)
        made[TOKEN_EMBEDDINGS] = (hidden, [BATCH, SEQ, spec.hidden_size])
    return made | _HEADS[spec.kind](trunk, spec, folder)


def _classifier(trunk: Trunk, spec: ModelSpec, folder: Path) -> Made:
    nodes, logits = trunk.nodes, trunk.read(trunk.shipped.logits)
    if (spec.logit_mean, spec.logit_sigma) != (None, None):
        sigma = 1.0 if spec.logit_sigma is None else spec.logit_sigma
        centred = nodes.add("Sub", logits, nodes.constant(spec.logit_mean or 0.0))
        logits = nodes.add("Div", centred, nodes.constant(sigma))
    probs = graph_heads.activate(nodes, spec.activation or Activation.IDENTITY, logits)
    shape: list[int | str] = [BATCH, len(spec.labels)]
    return {LOGITS: (logits, shape), PROBS: (probs, shape)}


def _token_logits(trunk: Trunk, spec: ModelSpec, folder: Path) -> Made:
    """Their activation is the runtime's; a reward without labels is the hidden states."""
    if not spec.labels:
        return {}
    return {TOKEN_LOGITS: (trunk.read(trunk.shipped.token_logits), [BATCH, SEQ, len(spec.labels)])}


def _embedding(trunk: Trunk, spec: ModelSpec, folder: Path) -> Made:
    """Pool the token vectors; a graph without them keeps the vector that it made itself."""
    nodes, made = trunk.nodes, Made()
    if trunk.shipped.tokens is None:
        pooled = trunk.read(trunk.shipped.sentence)
    else:
        hidden, width = trunk.read(trunk.shipped.tokens), spec.hidden_size
        if spec.token_layers:
            hidden = graph_heads.apply(nodes, load_layers(spec.token_layers, folder), hidden)
            width = spec.token_layers[-1].out_features
            made[TOKEN_EMBEDDINGS] = (hidden, [BATCH, SEQ, width])
        pooled = graph_pooling.pool(nodes, trunk.tokens(hidden, width), spec.pooling)
        pooled = graph_heads.apply(nodes, load_layers(spec.layers, folder), pooled)
    unit = graph_heads.normalize(nodes, pooled) if spec.normalize else pooled
    shape: list[int | str] = [BATCH, spec.embedding_size or spec.hidden_size]
    return {POOLED: (pooled, shape), SENTENCE_EMBEDDING: (unit, shape), **made}


def _sparse(trunk: Trunk, spec: ModelSpec, folder: Path) -> Made:
    if spec.sparse is None:
        raise ValueError("a sparse model has a SparseSpec; this is a bug in poolc")
    logits = trunk.tokens(trunk.read(trunk.shipped.token_logits), spec.vocab_size)
    weights = graph_pooling.pool_sparse(trunk.nodes, logits, spec.sparse)
    return {SPARSE_EMBEDDING: (weights, [BATCH, spec.vocab_size])}


def _multi_vector(trunk: Trunk, spec: ModelSpec, folder: Path) -> Made:
    found = spec.multi_vector
    if found is None:
        raise ValueError("a multi-vector model has two sides; this is a bug in poolc")
    vectors = trunk.read(trunk.shipped.tokens)
    vectors = graph_heads.apply(trunk.nodes, load_layers(found.layers, folder), vectors)
    if found.normalize:
        vectors = graph_heads.normalize(trunk.nodes, vectors)
    return {TOKEN_VECTORS: (vectors, [BATCH, SEQ, found.dim])}


_HEADS: Mapping[Kind, Callable[[Trunk, ModelSpec, Path], Made]] = {
    Kind.EMBEDDING: _embedding,
    Kind.CLASSIFIER: _classifier,
    Kind.TOKEN_CLASSIFIER: _token_logits,
    Kind.REWARD: _token_logits,
    Kind.SPARSE: _sparse,
    Kind.MULTI_VECTOR: _multi_vector,
}
KINDS = frozenset(_HEADS)
