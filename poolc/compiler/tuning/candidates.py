"""The table of rewrites: each is a pass, in the order in which they are applied.

Which of them ship untimed depends on the CPU: those that only leave work out do everywhere, those
that put another kernel in its place where that kernel was measured (docs/decisions/
012-measured-lowering.md).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import onnx_ir as ir

from poolc.compiler.passes.attention_layout import AttentionLayoutPass
from poolc.compiler.passes.attention_mask import AttentionMaskPass
from poolc.compiler.passes.bias_gelu import BiasGeluPass
from poolc.compiler.passes.float_mask import FloatMaskPass
from poolc.compiler.passes.gemm import GemmPass
from poolc.compiler.passes.grouped_heads import GroupedHeadsPass
from poolc.compiler.passes.pack_linears import PackLinearsPass
from poolc.compiler.passes.pooled_rows import PooledRowsPass
from poolc.compiler.passes.rms_norm import RmsNormPass
from poolc.compiler.passes.rotary import RotaryPass


@dataclass(frozen=True, slots=True)
class Candidate:
    """A rewrite. ``measured_with``: CPU features one of which it ships untimed for; None: never.

    ``before_int8``: it changes matrices, so that it comes before they are quantised.
    """

    name: str
    make: Callable[[], ir.passes.InPlacePass]
    measured_with: tuple[str, ...] | None = None
    before_int8: bool = False


_ANY = ("",)  # every CPU: less work, by the same kernels
_AVX512 = ("avx512f",)

CANDIDATES = (
    Candidate("pack_linears", PackLinearsPass, before_int8=True),
    Candidate("attention_mask", AttentionMaskPass, _ANY),
    Candidate("rms_norm", RmsNormPass, _AVX512),
    Candidate("rotary", RotaryPass, _AVX512),
    Candidate("grouped_heads", GroupedHeadsPass, _ANY),
    Candidate("attention_layout", AttentionLayoutPass, _ANY),
    Candidate("pooled_rows", PooledRowsPass, _ANY),
    Candidate("float_mask", FloatMaskPass, _AVX512),
    Candidate("bias_gelu", BiasGeluPass),
    Candidate("gemm", GemmPass, _AVX512),
)
NAMES = tuple(candidate.name for candidate in CANDIDATES)


def shipped(features: Collection[str]) -> tuple[str, ...]:
    """Return the rewrites of a CPU with these features where nothing is timed."""
    known = {"", *features}
    return tuple(one.name for one in CANDIDATES if not known.isdisjoint(one.measured_with or ()))


def apply(model: ir.Model, names: Iterable[str], *, before_int8: bool) -> set[str]:
    """Rewrite ``model`` by the named passes of one stage; return those that found something."""
    chosen, found = set(names), set()
    for candidate in CANDIDATES:
        wanted = candidate.name in chosen and candidate.before_int8 is before_int8
        if wanted and candidate.make()(model).modified:
            found.add(candidate.name)
    return found
