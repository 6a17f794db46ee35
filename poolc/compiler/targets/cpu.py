"""ONNX Runtime on a CPU.

The canonical graph runs as it is: its ``Attention``, ``Gelu`` and ``LayerNormalization`` nodes have
CPU kernels that beat the vendor fusions over them (docs/decisions/003-cpu-fusions.md). One graph an
output set, all reading one weights file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir

from poolc.compiler.passes.block_attention import BlockAttentionPass
from poolc.compiler.passes.select_outputs import SelectOutputsPass
from poolc.compiler.targets.base import Lowered
from poolc.compiler.weights import save_sharing_weights
from poolc.errors import InvalidOption
from poolc.model_cache.manifest import GraphInfo, Requires, TensorInfo
from poolc.spec import (
    MAIN_SET,
    TOKENS_SET,
    CompileOptions,
    ModelSpec,
    Precision,
    output_sets,
    route_set,
    route_spec,
    set_route,
)

# The oldest ONNX Runtime that the suite runs artifacts on; its CPU provider has Attention-23.
_REQUIRES = Requires(onnxruntime=">=1.24")
_PRECISIONS = (Precision.FP32, Precision.INT8)
# Micro-batches of 256 tokens keep activations in a core's L2 cache.
_TUNING = {"budget_tokens": 256}


class CpuCompiler:
    """Lowers for ONNX Runtime's CPU provider; int8 graphs come from ``quantize/``."""

    def check(self, options: CompileOptions) -> None:
        """See ``TargetCompiler.check``."""
        if options.precision not in _PRECISIONS:
            raise InvalidOption(
                f"precision is {options.precision}; target cpu has: {', '.join(_PRECISIONS)}",
                param="precision",
            )
        if options.calibrate is not None and options.precision is not Precision.INT8:
            raise InvalidOption(
                f"calibrate is for precision int8; precision is {options.precision}",
                param="calibrate",
            )

    def lower(self, canonical: Mapping[str, ir.Model], spec: ModelSpec, folder: Path) -> Lowered:
        """See ``TargetCompiler.lower``."""
        sets = output_sets(spec)
        graphs = [graph.graph for graph in canonical.values()]
        present = {value.name for graph in graphs for value in graph.outputs}
        tokens = sets.pop(TOKENS_SET)
        has_tokens = present.issuperset(tokens)  # graphs that a model ships may hide them
        if has_tokens and tokens != sets[MAIN_SET]:
            sets[TOKENS_SET] = tokens
        files = {
            route_set(output_set, route): _file(route_set(output_set, route))
            for route in canonical
            for output_set in sets
        }
        models = {
            file: SelectOutputsPass(sets[output_set.partition("@")[0]])(
                canonical[set_route(output_set)].clone()
            ).model
            for output_set, file in files.items()
        }
        blocked = _block_attention(models, files, spec)
        save_sharing_weights(models, folder, "model.onnx.data")
        infos = {output_set: _graph_info(file, models[file]) for output_set, file in files.items()}
        for route in canonical if has_tokens else ():
            infos.setdefault(route_set(TOKENS_SET, route), infos[route_set(MAIN_SET, route)])
        return Lowered(infos, _REQUIRES, {**_TUNING, **blocked})


def _block_attention(
    models: Mapping[str, ir.Model], files: Mapping[str, str], spec: ModelSpec
) -> dict[str, Any]:
    """Block the attention of the graphs that may get long texts; return what to record of it."""
    record = {}
    for output_set, file in files.items():
        found = BlockAttentionPass()
        if route_spec(spec, set_route(output_set)).max_length > found.max_whole:
            found(models[file])
            record[output_set] = found.record
    return {"attention": record} if record else {}


def _file(output_set: str) -> str:
    return "model.onnx" if output_set == MAIN_SET else f"model.{output_set}.onnx"


def _graph_info(file: str, model: ir.Model) -> GraphInfo:
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
