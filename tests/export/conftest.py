"""Artifacts as exports see them, with fields of their manifest changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from poolc.model_cache.artifact import Artifact, open_artifact

Opened = Callable[..., Artifact]


@pytest.fixture(scope="session")
def opened(artifact: Callable[[str], Path]) -> Opened:
    """Open the artifact of a model of ``tests.models`` with fields of its spec changed."""

    def make(name: str, **changes: Any) -> Artifact:
        found = open_artifact(artifact(name))
        spec = replace(found.manifest.spec, **changes)
        return replace(found, manifest=replace(found.manifest, spec=spec))

    return make


@pytest.fixture(scope="session")
def passages() -> list[str]:
    """Prose: the passages of the demo."""
    file = Path(__file__).resolve().parents[2] / "examples" / "demo" / "passages.jsonl"
    return [json.loads(line)["text"] for line in file.read_text(encoding="utf-8").splitlines()]
