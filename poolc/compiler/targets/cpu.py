"""ONNX Runtime on a CPU.

The canonical graph's ``Attention``, ``Gelu`` and ``LayerNormalization`` nodes have CPU kernels that
beat the vendor fusions over them (docs/decisions/003-cpu-fusions.md); other rewrites are timed
(docs/decisions/012-measured-lowering.md). One graph an output set, all reading one weights file.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from poolc.compiler.passes.block_attention import BlockAttentionPass
from poolc.compiler.passes.select_outputs import SelectOutputsPass
from poolc.compiler.targets.base import Lowerable, Lowered
from poolc.compiler.targets.interface import (
    check_precision,
    graph_file,
    graph_info,
    output_graphs,
    refuse_engine_options,
)
from poolc.compiler.targets.prepack import prepack
from poolc.compiler.tuning.candidates import CANDIDATES, apply
from poolc.compiler.tuning.choose import Built, Tuned, choose, why_not
from poolc.compiler.tuning.record import Tuning, defaults
from poolc.compiler.weights import save_sharing_weights
from poolc.model_cache.host import cpu_features, host_class
from poolc.model_cache.manifest import GraphInfo, PackedFor, Requires
from poolc.runtime.backends.onnxruntime import runtime_version
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


class CpuCompiler:
    """Lowers for ONNX Runtime's CPU provider; int8 graphs come from ``quantize/``."""

    def check(self, options: CompileOptions) -> None:
        """See ``TargetCompiler.check``."""
        check_precision(options, _PRECISIONS)
        refuse_engine_options(options)

    def absent(self, options: CompileOptions) -> str | None:
        """See ``TargetCompiler.absent``."""
        return None

    def untimed(self) -> Tuning:
        """See ``TargetCompiler.untimed``."""
        return defaults(cpu_features())

    def tune(
        self, source: Lowerable, spec: ModelSpec, start: Tuning, mode: str, folder: Path
    ) -> Tuned:
        """See ``TargetCompiler.tune``: the graph of the main outputs of the main route is timed."""
        why = why_not(source.canonical[""])
        if why is not None:
            return Tuned(start, {"mode": mode, "not_timed": why})
        outputs = output_sets(spec)[MAIN_SET]
        staged: dict[tuple[str, ...], Built] = {}

        def build(names: Sequence[str]) -> Built:
            early = _early(names)
            if early not in staged:
                graph, found = _quantized(source, "", early)
                save_sharing_weights({"early.onnx": graph}, folder, f"early_{len(staged)}.data")
                staged[early] = Built(graph, frozenset(found))
            graph = SelectOutputsPass(outputs)(staged[early].model.clone()).model
            found = apply(graph, names, before_int8=False)
            return Built(graph, staged[early].found | found)

        return choose(build, spec, start, mode, folder)

    def lower(self, source: Lowerable, spec: ModelSpec, folder: Path, tuning: Tuning) -> Lowered:
        """See ``TargetCompiler.lower``."""
        sets, has_tokens = output_graphs(source, spec)
        found: set[str] = set()
        models: dict[str, ir.Model] = {}
        files: dict[str, str] = {}
        for route in source.canonical:
            graph, early = _quantized(source, route, _early(tuning.rewrites))
            found |= early
            for output_set, outputs in sets.items():
                name = route_set(output_set, route)
                model = SelectOutputsPass(outputs)(graph.clone()).model
                found |= apply(model, tuning.rewrites, before_int8=False)
                files[name] = graph_file(name)
                models[files[name]] = model
        blocked = _block_attention(models, files, spec)
        save_sharing_weights(models, folder, "model.onnx.data")
        twins = prepack(folder, sorted(models), "model.onnx.data")
        infos = {
            output_set: replace(graph_info(file, models[file]), packed=twins.get(file))
            for output_set, file in files.items()
        }
        for route in source.canonical if has_tokens else ():
            infos.setdefault(route_set(TOKENS_SET, route), infos[route_set(MAIN_SET, route)])
        return _lowered(source, infos, replace(tuning, rewrites=_used(tuning, found)), blocked)


def _used(tuning: Tuning, found: Collection[str]) -> tuple[str, ...]:
    """Return the rewrites that found something in the model: only they are recorded."""
    return tuple(name for name in tuning.rewrites if name in found)


def _lowered(
    source: Lowerable, infos: dict[str, GraphInfo], tuning: Tuning, blocked: Mapping[str, Any]
) -> Lowered:
    record, requires = tuning.to_plain() | dict(blocked), _REQUIRES
    if source.quantized is not None:
        requires = replace(requires, cpu_features=source.quantized.form.cpu_features)
        record |= source.quantized.tuning
    is_packed = any(info.packed for info in infos.values())
    packed_for = PackedFor(runtime_version(), host_class()) if is_packed else None
    return Lowered(infos, requires, packed_for, record)


def _early(names: Sequence[str]) -> tuple[str, ...]:
    early = {candidate.name for candidate in CANDIDATES if candidate.before_int8}
    return tuple(name for name in names if name in early)


def _quantized(source: Lowerable, route: str, early: Sequence[str]) -> tuple[ir.Model, set[str]]:
    """Return a copy of a route's graph with the early rewrites, quantised; and which applied."""
    graph = source.canonical[route].clone()
    found = apply(graph, early, before_int8=True)
    if source.quantized is not None:
        graph = source.quantized.apply(graph, route)
    return graph, found


def _block_attention(
    models: Mapping[str, ir.Model], files: Mapping[str, str], spec: ModelSpec
) -> dict[str, Any]:
    """Block the attention of the graphs that may get long texts; return what to record of it."""
    record = {}
    for output_set, file in files.items():
        found = BlockAttentionPass(route_spec(spec, set_route(output_set)).max_length)
        if found(models[file]).modified or found.record["left"]:
            record[output_set] = found.record
    return {"attention": record} if record else {}
