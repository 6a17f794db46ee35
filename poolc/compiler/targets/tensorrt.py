"""Engines of TensorRT and TensorRT-RTX, each with the ONNX graph that it was built from.

Attention, norms and activations stay operators of the standard, which the libraries fuse; the
precision is in the graph's types, since both build strongly typed networks; fp8 is in pairs of
QuantizeLinear and DequantizeLinear around the products. The same graph runs on
ONNX Runtime's CPU provider, where its numbers are compared, and is what an engine is rebuilt from
on another machine (docs/decisions/020-tensorrt.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import onnx_ir as ir

from poolc.compiler.passes.causal_attention import CausalAttentionPass
from poolc.compiler.passes.expanded_masks import ExpandedMasksPass
from poolc.compiler.passes.int32_inputs import Int32InputsPass
from poolc.compiler.passes.reduced_precision import ReducedPrecisionPass
from poolc.compiler.passes.select_outputs import SelectOutputsPass
from poolc.compiler.passes.sizes_of_inputs import SizesOfInputsPass
from poolc.compiler.targets.base import Lowerable, Lowered
from poolc.compiler.targets.engines import (
    build_engines,
    check_engine_options,
    engine_requires,
    fp8_problem,
    open_builder,
    read_settings,
)
from poolc.compiler.targets.interface import (
    check_precision,
    graph_file,
    graph_info,
    output_graphs,
    run_on_cpu,
)
from poolc.compiler.tuning.candidates import apply
from poolc.compiler.tuning.choose import Tuned
from poolc.compiler.tuning.record import Tuning
from poolc.compiler.weights import save_sharing_weights
from poolc.errors import CompileError, InvalidOption
from poolc.model_cache.manifest import Manifest, Requires
from poolc.runtime.backends.cuda_device import device_problem
from poolc.runtime.profiles import BUDGET_TOKENS, budget
from poolc.spec import (
    ENGINE_TARGETS,
    MAIN_SET,
    TOKENS_SET,
    CompileOptions,
    ModelSpec,
    Precision,
    Target,
    route_set,
    route_spec,
)

# What records say of ``EngineFile.fused_attention``.
_ATTENTION_KERNELS = {True: "fused", False: "plain products", None: "products of the graph"}
_PRECISIONS = (Precision.FP32, Precision.FP16, Precision.BF16, Precision.FP8)
# What leaves work out, in the standard's own operators; heads stay axes of their own.
_REWRITES = ("pack_linears", "attention_mask", "rms_norm", "rotary", "grouped_heads")
# Sums over a row: a strongly typed norm adds in the type that it is given.
_EXACT = frozenset({"LayerNormalization", "RMSNormalization"})


class TensorRTCompiler:
    """Lowers for TensorRT, on the GPU that the engine is to run on."""

    target: ClassVar[Target] = Target.TENSORRT

    def check(self, options: CompileOptions) -> None:
        """See ``TargetCompiler.check``; raises MissingDependency without the library or a GPU."""
        check_precision(options, _PRECISIONS)
        check_engine_options(self.target, options)
        builder = open_builder(self.target, options, None)
        if options.precision is Precision.FP8:
            problem = fp8_problem(builder, options.hardware_compatibility)
            if problem is not None:
                raise InvalidOption(problem, param="precision")

    def absent(self, options: CompileOptions) -> str | None:
        """See ``TargetCompiler.absent``."""
        return device_problem()

    def untimed(self) -> Tuning:
        """See ``TargetCompiler.untimed``."""
        return Tuning(_REWRITES, BUDGET_TOKENS, 1)

    def tune(
        self, source: Lowerable, spec: ModelSpec, start: Tuning, mode: str, folder: Path
    ) -> Tuned:
        """See ``TargetCompiler.tune``: the builder times kernels, and there is one graph."""
        return Tuned(start, {"mode": "fixed"})

    def lower(self, source: Lowerable, spec: ModelSpec, folder: Path, tuning: Tuning) -> Lowered:
        """See ``TargetCompiler.lower``."""
        builder = open_builder(self.target, source.options, source.timing)
        longest = max(route_spec(spec, route).max_length for route in source.canonical)
        settings = read_settings(builder, source.options, source.precision, longest)
        models, found, has_tokens = _lower(source, spec, tuning)
        files = {name: graph_file(name) for name in models}
        save_sharing_weights(
            {file: models[name] for name, file in files.items()}, folder, "model.onnx.data"
        )
        infos, kernels = {}, {}
        for name, engine in build_engines(builder, settings, folder, files).items():
            kernels[name] = _ATTENTION_KERNELS[engine.fused_attention]
            info = graph_info(engine.file, models[name])
            infos[name] = replace(info, onnx=files[name], scratch_bytes=engine.scratch_bytes)
        for route in source.canonical if has_tokens else ():
            infos.setdefault(route_set(TOKENS_SET, route), infos[route_set(MAIN_SET, route)])
        budget_tokens = min(tuning.budget_tokens, budget(settings.profiles))
        record = {
            "rewrites": [name for name in tuning.rewrites if name in found],
            "budget_tokens": budget_tokens,
            "attention_kernels": kernels,
        }
        return Lowered(
            infos,
            Requires(engine=engine_requires(builder, settings)),
            tuning=record | dict(source.quantized.tuning if source.quantized else {}),
            profiles=settings.profiles,
        )


class TensorRTRtxCompiler(TensorRTCompiler):
    """Lowers for TensorRT-RTX, on any machine."""

    target: ClassVar[Target] = Target.TENSORRT_RTX

    def absent(self, options: CompileOptions) -> str | None:
        """See ``TargetCompiler.absent``; a GPU of another kind than asked for runs nothing."""
        problem = super().absent(options)
        if problem is not None:
            return problem
        builder = open_builder(self.target, options, None)
        here = builder.device
        if here is None or here.compute_capability in builder.compute_capabilities:
            return None
        wanted = " or ".join(builder.compute_capabilities)
        return (
            f"the GPU here, {here.name}, has compute capability {here.compute_capability}, and "
            f"the engine is for {wanted}"
        )


def lower_graph(
    model: ir.Model,
    rewrites: tuple[str, ...],
    precision: Precision,
    max_length: int,
    quantize: Callable[[ir.Model], object] | None = None,
) -> set[str]:
    """Rewrite a canonical graph of chosen outputs for TensorRT; return the rewrites that applied.

    ``quantize`` rewrites matrix products in place, for fp8, whose other operators are in fp16.
    Raises CompileError for a graph that names no last hidden states, below fp32.
    """
    SizesOfInputsPass()(model)
    found = apply(model, rewrites, before_int8=True)
    if quantize is not None:
        quantize(model)
    found |= apply(model, rewrites, before_int8=False)
    CausalAttentionPass(max_length, run_on_cpu)(model)
    ExpandedMasksPass()(model)
    trunk = Precision.FP16 if precision is Precision.FP8 else precision
    is_full = trunk is Precision.FP32
    if not is_full and not ReducedPrecisionPass(trunk, _EXACT)(model).modified:
        raise CompileError(
            f"precision {precision} needs the model's last hidden states in its graph, and this "
            "one hides them: compile it in fp32"
        )
    Int32InputsPass()(model)
    return found


def on_cpu(manifest: Manifest) -> Manifest | None:
    """Return the manifest of the graphs that engines are built from, for ONNX Runtime on a CPU.

    None for other targets, and for bf16, of which its CPU provider has no kernels.
    """
    if manifest.target not in ENGINE_TARGETS or manifest.precision is Precision.BF16:
        return None
    graphs = {
        name: replace(info, file=info.onnx or info.file, onnx=None, scratch_bytes=())
        for name, info in manifest.graphs.items()
    }
    return replace(manifest, target=Target.CPU, graphs=graphs, requires=Requires(), profiles=())


def _lower(
    source: Lowerable, spec: ModelSpec, tuning: Tuning
) -> tuple[dict[str, ir.Model], set[str], bool]:
    """Return the graphs to build by output set, the rewrites that applied, and whether one of the
    graphs has token vectors.
    """
    sets, has_tokens = output_graphs(source, spec)
    models: dict[str, ir.Model] = {}
    found: set[str] = set()
    quantized = source.quantized
    for route, canonical in source.canonical.items():
        longest = route_spec(spec, route).max_length
        for output_set, outputs in sets.items():
            model = SelectOutputsPass(outputs)(canonical.clone()).model
            quantize = None if quantized is None else partial(quantized.apply, route=route)
            found |= lower_graph(model, tuning.rewrites, source.precision, longest, quantize)
            models[route_set(output_set, route)] = model
    return models, found, has_tokens
