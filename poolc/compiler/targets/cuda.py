"""ONNX Runtime on NVIDIA GPUs: no padding where the model allows it, few large kernels.

Encoders whose attention is plain run without padding (``passes/packed_tokens.py``); the others run
padded, by the canonical graph's ``Attention``. Residual sums, norms and activations are fused, and
the trunk runs in the precision that was asked for (docs/decisions/018-cuda.md).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx_ir as ir

from poolc.compiler.passes.bias_gelu import BiasGeluPass
from poolc.compiler.passes.causal_attention import CausalAttentionPass
from poolc.compiler.passes.float_argmax import FloatArgMaxPass
from poolc.compiler.passes.packed_tokens import PackedTokensPass
from poolc.compiler.passes.reduced_precision import ReducedPrecisionPass
from poolc.compiler.passes.select_outputs import SelectOutputsPass
from poolc.compiler.passes.sizes_of_inputs import SizesOfInputsPass
from poolc.compiler.passes.skip_norm import SkipNormPass
from poolc.compiler.targets.base import Lowerable, Lowered
from poolc.compiler.targets.interface import (
    check_precision,
    graph_file,
    graph_info,
    output_graphs,
    refuse_engine_options,
    run_on_cpu,
)
from poolc.compiler.tuning.candidates import apply
from poolc.compiler.tuning.choose import Tuned
from poolc.compiler.tuning.record import Tuning
from poolc.compiler.weights import save_sharing_weights
from poolc.errors import CompileError
from poolc.model_cache.manifest import Requires
from poolc.runtime.backends.cuda_library import PROVIDER
from poolc.runtime.probe import provider_problem
from poolc.spec import (
    MAIN_SET,
    TOKENS_SET,
    CompileOptions,
    Kind,
    ModelSpec,
    Precision,
    route_set,
)

# The oldest ONNX Runtime whose CUDA provider has Attention-23.
_REQUIRES = Requires(onnxruntime=">=1.24")
_PRECISIONS = (Precision.FP32, Precision.FP16, Precision.BF16)
# Less work by the same kernels, as on a CPU.
_REWRITES = ("attention_mask", "rms_norm", "rotary", "grouped_heads", "attention_layout")
# Large enough to fill a large GPU, small enough that the host prepares one while another runs.
_BUDGET_TOKENS = 16384


class CudaCompiler:
    """Lowers for ONNX Runtime's CUDA provider."""

    def check(self, options: CompileOptions) -> None:
        """See ``TargetCompiler.check``."""
        check_precision(options, _PRECISIONS)
        refuse_engine_options(options)

    def absent(self, options: CompileOptions) -> str | None:
        """See ``TargetCompiler.absent``."""
        return provider_problem(PROVIDER)

    def untimed(self) -> Tuning:
        """See ``TargetCompiler.untimed``."""
        return Tuning(_REWRITES, _BUDGET_TOKENS, 1)

    def tune(
        self, source: Lowerable, spec: ModelSpec, start: Tuning, mode: str, folder: Path
    ) -> Tuned:
        """See ``TargetCompiler.tune``: nothing is timed yet."""
        return Tuned(start, {"mode": "fixed"})

    def lower(self, source: Lowerable, spec: ModelSpec, folder: Path, tuning: Tuning) -> Lowered:
        """See ``TargetCompiler.lower``."""
        sets, has_tokens = output_graphs(source, spec)
        models: dict[str, ir.Model] = {}
        files: dict[str, str] = {}
        layouts: dict[str, str] = {}
        found: set[str] = set()
        for route, canonical in source.canonical.items():
            for output_set, outputs in sets.items():
                name = route_set(output_set, route)
                model = SelectOutputsPass(outputs)(canonical.clone()).model
                found |= apply(model, tuning.rewrites, before_int8=False)
                layouts[name] = _fuse(model, spec, source.precision)
                files[name] = graph_file(name)
                models[files[name]] = model
        save_sharing_weights(models, folder, "model.onnx.data")
        infos = {name: graph_info(file, models[file]) for name, file in files.items()}
        for route in source.canonical if has_tokens else ():
            infos.setdefault(route_set(TOKENS_SET, route), infos[route_set(MAIN_SET, route)])
        used = tuple(name for name in tuning.rewrites if name in found)
        record: dict[str, Any] = {
            "rewrites": list(used),
            "budget_tokens": tuning.budget_tokens,
            "layout": layouts,
        }
        return Lowered(infos, _REQUIRES, None, record)


def _fuse(model: ir.Model, spec: ModelSpec, precision: Precision) -> str:
    """Rewrite for CUDA's kernels; return "packed", or "padded" and why."""
    SizesOfInputsPass()(model)
    layout = _packed(model, spec)
    SkipNormPass()(model)
    BiasGeluPass()(model)
    FloatArgMaxPass()(model)
    if precision is not Precision.FP32 and not ReducedPrecisionPass(precision)(model).modified:
        raise CompileError(
            f"precision {precision} needs the model's last hidden states in its graph, and this "
            "one hides them: compile it in fp32"
        )
    return layout


def _packed(model: ir.Model, spec: ModelSpec) -> str:
    if spec.kind is Kind.MULTI_VECTOR:
        return "padded: tokens that are not attended to have vectors too"
    found = PackedTokensPass(spec.max_length, run_on_cpu)
    if found(model).modified:
        return "packed"
    CausalAttentionPass(spec.max_length, run_on_cpu)(model)
    return f"padded: {found.why_not}"
