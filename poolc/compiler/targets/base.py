"""What every target does: lower the canonical graph into executable files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import onnx_ir as ir

from poolc.model_cache.manifest import GraphInfo, PackedFor, Requires
from poolc.spec import CompileOptions, ModelSpec


@dataclass(frozen=True, slots=True)
class Lowered:
    """The result: graphs by output set, what they need, and what was tuned."""

    graphs: Mapping[str, GraphInfo]
    requires: Requires
    packed_for: PackedFor | None = None
    tuning: Mapping[str, Any] = field(default_factory=dict)


class TargetCompiler(Protocol):
    """Lowers for one target."""

    def check(self, options: CompileOptions) -> None:
        """Raise InvalidOption for a precision that the target does not have."""
        ...

    def lower(self, canonical: Mapping[str, ir.Model], spec: ModelSpec, folder: Path) -> Lowered:
        """Write the executable files into ``folder``. Leaves ``canonical`` as it is.

        It has one graph a route of ``spec``, the main one under "".
        """
        ...
