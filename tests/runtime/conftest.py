"""Fixtures of the runtime's tests: the libraries that define the models, variants of engines."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from poolc.runtime.calls import base
from poolc.runtime.engine import Engine
from poolc.spec import Kind, Task

Variant = Callable[..., Engine]


@pytest.fixture(scope="session")
def sentence_transformer(tiny_embedder_source: Path) -> Any:
    """What defines ``embedder``: a SentenceTransformer over the same folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers import SentenceTransformer

        return SentenceTransformer(str(tiny_embedder_source), device="cpu", local_files_only=True)


@pytest.fixture(scope="session")
def auto_tokenizer() -> Callable[[Path], Any]:
    """Load AutoTokenizer from a folder, once a folder."""

    @cache
    def load(folder: Path) -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(folder)

    return load


@pytest.fixture(scope="session")
def variant() -> Variant:
    """Return an engine over the same files as another, with fields of its spec changed."""

    def make(engine: Engine, **changes: Any) -> Engine:
        manifest = engine.artifact.manifest
        changed = replace(manifest, spec=replace(manifest.spec, **changes))
        return Engine(replace(engine.artifact, manifest=changed))

    return make


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of eight texts, so that a few texts are many windows."""
    monkeypatch.setattr(base, "WINDOW", 8)


@pytest.fixture
def token_rewarder(embedder: Engine, variant: Variant) -> Engine:
    """A reward model of one row a token."""
    return variant(
        embedder, kind=Kind.REWARD, tasks=(Task.REWARD, Task.ENCODE), embedding_size=None
    )
