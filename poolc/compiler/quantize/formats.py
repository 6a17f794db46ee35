"""The number formats that products are quantised to, and what each asks of the rest.

int8 is for ONNX Runtime on a CPU, fp8 (E4M3) for TensorRT. How the groups of either are chosen
among, and which are left, is the same: ``quantize.py``, ``sensitivity.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import onnx_ir as ir

from poolc.compiler.passes.float8_linears import Float8LinearsPass
from poolc.compiler.passes.quantize_linears import QuantizeLinearsPass
from poolc.compiler.quantize.float8 import choose_float8
from poolc.compiler.quantize.schemes import Activations, Array, Choice, Scheme, choose
from poolc.model_cache.host import cpu_features
from poolc.spec import Precision

# Integer dot products that add in 32 bits. Without one of them pairs of products saturate at 16
# bits on x86, so weights keep 7 bits there.
_DOT_PRODUCTS = ("avx512_vnni", "avx_vnni", "asimddp")


@dataclass(frozen=True, slots=True)
class Format:
    """How products become numbers of a precision.

    ``attempts`` are ways to choose for a group, of what calibration saw and its [K, N] weights;
    the next is tried where the answers of one are not close enough. ``rewrite`` makes the pass that
    carries choices out. Groups that are left are in ``rest``, the precision of the trunk.
    """

    precision: Precision
    rest: Precision
    rewrite: Callable[[Mapping[str, Choice]], ir.passes.InPlacePass]
    attempts: tuple[Callable[[Activations, Array], Choice], ...]
    kernels: str  # for people
    record: Mapping[str, Any] = field(default_factory=dict)  # of the manifest, beside the groups
    cpu_features: tuple[str, ...] = ()  # that the weights' range counts on


def format_of(precision: Precision) -> Format:
    """Return the format of a precision that quantises; int8 depends on the CPU at hand."""
    if precision is Precision.FP8:
        return Format(
            precision, Precision.FP16, Float8LinearsPass, (choose_float8,), "E4M3, static scales"
        )
    feature = next((name for name in _DOT_PRODUCTS if name in cpu_features()), None)
    levels = 127 if feature else 63
    tried = ((Scheme.STATIC, Scheme.ROW), (Scheme.ROW,))
    return Format(
        precision,
        Precision.FP32,
        partial(_int8, levels=levels),
        tuple(partial(choose, levels=levels, schemes=schemes) for schemes in tried),
        feature or "7-bit weights, no integer dot product",
        {"levels": levels},
        (feature,) if feature else (),
    )


def _int8(choices: Mapping[str, Choice], levels: int) -> ir.passes.InPlacePass:
    return QuantizeLinearsPass(choices, levels)
