"""What every target does: lower the canonical graph into executable files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import onnx_ir as ir

from poolc.compiler.quantize.quantize import Quantized
from poolc.compiler.tuning.choose import Tuned
from poolc.compiler.tuning.record import Tuning
from poolc.model_cache.manifest import GraphInfo, PackedFor, Requires
from poolc.spec import CompileOptions, ModelSpec, Precision, Profile


@dataclass(frozen=True, slots=True)
class Lowerable:
    """Canonical graphs by route of a spec, the main one under "", and the precision they get.

    ``quantized`` is how to quantise them, for int8 and fp8. Of ``options`` the target reads its
    own; ``timing`` is a folder where it may keep what it timed for the next compile.
    """

    canonical: Mapping[str, ir.Model]
    quantized: Quantized | None = None
    precision: Precision = Precision.FP32
    options: CompileOptions = field(default_factory=CompileOptions)
    timing: Path | None = None


@dataclass(frozen=True, slots=True)
class Lowered:
    """The result: graphs by output set, what they need, and what was tuned."""

    graphs: Mapping[str, GraphInfo]
    requires: Requires
    packed_for: PackedFor | None = None
    tuning: Mapping[str, Any] = field(default_factory=dict)
    profiles: tuple[Profile, ...] = ()


class TargetCompiler(Protocol):
    """Lowers for one target."""

    def check(self, options: CompileOptions) -> None:
        """Raise InvalidOption for what the target does not have, and MissingDependency where it
        cannot be compiled for on this machine.
        """
        ...

    def absent(self, options: CompileOptions) -> str | None:
        """Say what this machine lacks to run what is lowered; None where it runs."""
        ...

    def untimed(self) -> Tuning:
        """Return what ships where nothing is timed."""
        ...

    def tune(
        self, source: Lowerable, spec: ModelSpec, start: Tuning, mode: str, folder: Path
    ) -> Tuned:
        """Time what can be chosen on this machine; ``folder`` holds files meanwhile."""
        ...

    def lower(self, source: Lowerable, spec: ModelSpec, folder: Path, tuning: Tuning) -> Lowered:
        """Write the executable files into ``folder``. Leaves the graphs of ``source`` as they are.

        The same tuning gives the same bytes.
        """
        ...
