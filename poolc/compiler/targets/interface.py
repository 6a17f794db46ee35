"""What targets have in common: which graphs, their names, their interface, what is refused."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from poolc.compiler.targets.base import Lowerable
from poolc.errors import InvalidOption
from poolc.model_cache.manifest import GraphInfo, TensorInfo
from poolc.runtime.backends.onnxruntime import import_onnxruntime
from poolc.spec import (
    ENGINE_OPTIONS,
    ENGINE_TARGETS,
    MAIN_SET,
    TOKENS_SET,
    CompileOptions,
    ModelSpec,
    Precision,
    Target,
    output_sets,
)

# Precisions whose products are quantised, which needs calibration, and the targets that have them.
_QUANTIZED_ON = {Precision.INT8: (Target.CPU,), Precision.FP8: ENGINE_TARGETS}


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


def check_precision(options: CompileOptions, allowed: Collection[Precision]) -> None:
    """Raise InvalidOption for a precision that the target does not have, or for texts to calibrate
    on where nothing is calibrated.
    """
    asked, target = options.precision, options.target
    if asked not in allowed:
        others = _QUANTIZED_ON.get(asked)
        hint = f"; {asked} is for {' and '.join(others)}" if others else ""
        raise InvalidOption(
            f"precision is {asked}; target {target} has: {', '.join(allowed)}{hint}",
            param="precision",
        )
    if options.calibrate is not None and asked not in _QUANTIZED_ON:
        known = ", ".join(f"{one} ({', '.join(on)})" for one, on in _QUANTIZED_ON.items())
        raise InvalidOption(
            f"calibrate is for precisions that quantise: {known}; precision is {asked}",
            param="calibrate",
        )


def refuse_engine_options(options: CompileOptions) -> None:
    """Raise InvalidOption for options of engines, for targets that have none."""
    for name in ENGINE_OPTIONS:
        if getattr(options, name) != getattr(CompileOptions(), name):
            raise InvalidOption(
                f"{name} is for the targets {' and '.join(ENGINE_TARGETS)}; target is "
                f"{options.target}",
                param=name,
            )


def run_on_cpu(model: ir.Model, feeds: Mapping[str, npt.NDArray[np.int64]]) -> npt.NDArray[Any]:
    """Run a small graph of one output by ONNX Runtime's CPU provider."""
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(
        ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = {value.name for value in session.get_inputs()}
    (output,) = session.run(None, {name: feeds[name] for name in names})
    array: npt.NDArray[Any] = output
    return array


def _tensor_info(value: ir.Value) -> TensorInfo:
    shape = value.shape.dims if value.shape is not None else ()
    dims = tuple(dim if isinstance(dim, int) else str(dim.value) for dim in shape)
    dtype = ir.DataType(value.dtype).numpy().name if value.dtype is not None else "unknown"
    return TensorInfo(str(value.name), dtype, dims)
