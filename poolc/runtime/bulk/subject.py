"""Whose answers a job writes: what its bookkeeping must know of a loaded model.

Plain data that can be pickled: who keeps the ledger need not be who runs the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from poolc.model_cache.artifact import Artifact
from poolc.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class Subject:
    """A model, and ``host``: what rounds as it does (kind of CPU, backend, versions).

    ``spec`` is the engine's, which may know other sizes of vectors than the artifact.
    """

    artifact: Artifact
    spec: ModelSpec
    budget_tokens: int
    host: Mapping[str, Any] = field(default_factory=dict)
