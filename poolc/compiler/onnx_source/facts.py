"""What a shipped graph says about its model: sizes and limits, in the words of ``Architecture``."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from poolc.compiler.architecture import Architecture, architecture_name
from poolc.compiler.onnx_source.checks import OR_WEIGHTS
from poolc.compiler.onnx_source.shipped import Shipped
from poolc.errors import UnsupportedModel
from poolc.spec import INPUT_IDS, TOKEN_TYPE_IDS, Trunk

# Operators that pass indices through as they are.
_PASSING = ("Cast", "Identity", "Reshape", "Unsqueeze", "Squeeze", "Flatten")


def look(shipped: Shipped, config: Any, trunk: Trunk) -> Architecture:
    """Return the facts. Raises UnsupportedModel where the graph has not what ``trunk`` gives."""
    name = architecture_name(config)
    found, wanted = _output(shipped, trunk, name)
    if found is None:
        raise UnsupportedModel(
            f"{shipped.file} gives {', '.join(shipped.outputs)}; {name} needs {wanted}: choose "
            f"what the graph has with --convert, {OR_WEIGHTS}"
        )
    _check_labels(shipped, config, trunk)
    hidden = getattr(config.get_text_config(), "hidden_size", None)
    width = shipped.outputs[shipped.tokens][-1] if shipped.tokens else hidden
    if not isinstance(width, int):
        raise UnsupportedModel(f"config.json gives {name} no hidden_size")
    return Architecture(
        name=name,
        config=config,
        trunk=trunk,
        auto=None,
        hidden_size=width,
        vocab_size=_vocab_size(shipped, config, trunk),
        position_limit=_position_limit(shipped, config),
        takes_token_types=TOKEN_TYPE_IDS in shipped.inputs,
    )


def _output(shipped: Shipped, trunk: Trunk, name: str) -> tuple[str | None, str]:
    """Return the output that a trunk's head reads, None where there is none, and what it is."""
    if trunk is Trunk.BASE:
        return shipped.tokens or shipped.sentence, "last_hidden_state or token_embeddings"
    if trunk is Trunk.SEQUENCE_CLASSIFIER:
        return shipped.logits, "logits of the text"
    if trunk in (Trunk.TOKEN_CLASSIFIER, Trunk.MASKED_LM):
        return shipped.token_logits, "logits of every token"
    raise UnsupportedModel(
        f"{shipped.file}: poolc reads no {trunk} head ({name}) from ONNX: compile the model's "
        "weights, without --from-onnx"
    )


def _check_labels(shipped: Shipped, config: Any, trunk: Trunk) -> None:
    if trunk not in (Trunk.SEQUENCE_CLASSIFIER, Trunk.TOKEN_CLASSIFIER):
        return
    count = shipped.outputs[str(shipped.logits or shipped.token_logits)][-1]
    if count != config.num_labels:
        raise UnsupportedModel(
            f"{shipped.file} gives {count} logits, but config.json has {config.num_labels} labels: "
            f"give the graph and the config.json of one model, {OR_WEIGHTS}"
        )


def _vocab_size(shipped: Shipped, config: Any, trunk: Trunk) -> int:
    """Return the rows of the table that input_ids choose from, or how many have logits."""
    if trunk is Trunk.MASKED_LM:
        return shipped.outputs[str(shipped.token_logits)][-1]
    for table, indices in _tables(shipped.model.graph):
        while (node := indices.producer()) is not None and node.op_type in _PASSING:
            indices = node.inputs[0]
        if indices.name == INPUT_IDS:
            return table[0]
    size = getattr(config, "vocab_size", None)
    if not isinstance(size, int):
        raise UnsupportedModel(
            f"neither {shipped.file} nor config.json tells the vocabulary's size"
        )
    return size


def _position_limit(shipped: Shipped, config: Any) -> int | None:
    """Return how many positions there are.

    Graphs that count them with CumSum start at the padding id + 1 (RoBERTa, MPNet).
    """
    limit = getattr(config, "max_position_embeddings", None)
    if not isinstance(limit, int) or limit <= 0:
        return None
    for table, indices in _tables(shipped.model.graph):
        if table[0] == limit and _counted(indices):
            return limit - 1 - int(getattr(config, "pad_token_id", None) or 0)
    return limit


def _tables(graph: ir.Graph) -> list[tuple[tuple[int, ...], ir.Value]]:
    """Return shape and indices of every lookup in a matrix of weights."""
    found: list[tuple[tuple[int, ...], ir.Value]] = []
    for node in graph:
        if node.op_type != "Gather" or node.inputs[0].const_value is None:
            continue
        shape = tuple(int(dim) for dim in node.inputs[0].const_value.shape)
        if len(shape) == 2:
            found.append((shape, node.inputs[1]))
    return found


def _counted(value: ir.Value) -> bool:
    seen: set[int] = set()
    pending = [value]
    while pending:
        node = pending.pop().producer()
        if node is None or id(node) in seen:
            continue
        if node.op_type == "CumSum":
            return True
        seen.add(id(node))
        pending += [given for given in node.inputs if given is not None]
    return False
