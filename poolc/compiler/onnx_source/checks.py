"""Which shipped graphs are refused: what reading them tells, with the file and a way out."""

from __future__ import annotations

import onnx_ir as ir

from poolc.compiler.onnx_source.tensors import graphs
from poolc.errors import UnsupportedModel
from poolc.spec import ATTENTION_MASK, INPUT_IDS, TOKEN_TYPE_IDS

OR_WEIGHTS = "or compile the model's weights, without --from-onnx"
_OPSETS = range(11, 24)
_INPUTS = (INPUT_IDS, ATTENTION_MASK, TOKEN_TYPE_IDS)
_DOMAINS = frozenset({"", "ai.onnx", "com.microsoft"})
# Parts of the names of operators, in lower case, that compute with integers or with blocks of them.
_QUANTIZED = ("quant", "qlinear", "matmulinteger", "convinteger", "matmulnbits", "matmulbnb4")
_QUANTIZED_VENDOR = ("QAttention", "QGemm", "QMoE", "QOrdered", "QEmbed", "MatMulFpQ4")


def check_graph(model: ir.Model, file: str) -> None:
    """Raise UnsupportedModel for operators or inputs that poolc does not compile."""
    opset = opset_of(model)
    if opset not in _OPSETS:
        raise UnsupportedModel(
            f"{file} has opset {opset}; poolc reads {_OPSETS[0]} to {_OPSETS[-1]}: export it with "
            f"one of those, {OR_WEIGHTS}"
        )
    own = {identifier[0] for identifier in model.functions}
    for node in (node for graph in graphs(model) for node in graph):
        if node.domain not in _DOMAINS | own:
            raise UnsupportedModel(
                f"{file} has the operator {node.op_type} of domain {node.domain}, which ONNX "
                f"Runtime does not bring: export it without custom operators, {OR_WEIGHTS}"
            )
        if _is_quantized(node.op_type):
            raise UnsupportedModel(
                f"{file} is quantised (it has {node.op_type}); poolc compiles the model's own "
                f"weights: give the unquantised export as {file}, {OR_WEIGHTS}"
            )
    initializers = model.graph.initializers
    _check_inputs([v for v in model.graph.inputs if v.name not in initializers], file)


def opset_of(model: ir.Model) -> int:
    """Return the version of ONNX's own operators."""
    return int(model.opset_imports.get("", model.opset_imports.get("ai.onnx", 0)))


def _is_quantized(op_type: str) -> bool:
    named = any(part in op_type.lower() for part in _QUANTIZED)
    return named or op_type.startswith(_QUANTIZED_VENDOR)


def _check_inputs(inputs: list[ir.Value], file: str) -> None:
    names = [str(value.name) for value in inputs]
    for name in names:
        if "past_key_values" in name:
            raise UnsupportedModel(
                f"{file} is an export for text generation (its input {name} holds earlier tokens): "
                "export the task feature-extraction (optimum-cli export onnx --task "
                f"feature-extraction), {OR_WEIGHTS}"
            )
    for name in names:
        if name not in _INPUTS:
            raise UnsupportedModel(
                f"{file} has the input {name}; poolc feeds {', '.join(_INPUTS)}: export it with "
                f"these alone, {OR_WEIGHTS}"
            )
    for name in (INPUT_IDS, ATTENTION_MASK):
        if name not in names:
            raise UnsupportedModel(
                f"{file} has no input {name}, without which texts of different lengths cannot "
                f"share a batch: export it with that input, {OR_WEIGHTS}"
            )
    for value in inputs:
        _check_input(value, file)


def _check_input(value: ir.Value, file: str) -> None:
    if value.dtype is not ir.DataType.INT64:
        raise UnsupportedModel(
            f"{file}: input {value.name} is {value.dtype}; poolc feeds INT64: export it with that, "
            f"{OR_WEIGHTS}"
        )
    dims = None if value.shape is None else list(value.shape.dims)
    if dims is not None and (len(dims) != 2 or any(isinstance(dim, int) for dim in dims)):
        raise UnsupportedModel(
            f"{file}: input {value.name} has the fixed shape {value.shape}; texts differ in "
            "number and length: export it with dynamic axes batch and sequence, "
            f"{OR_WEIGHTS}"
        )
