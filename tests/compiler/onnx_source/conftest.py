"""A model that ships ONNX, exported once, and copies of it that tests may change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.compiler.onnx_source.shipping import ship
from tests.models import tiny_embedder


@pytest.fixture(scope="session")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedding model of Sentence Transformers; no test changes it."""
    folder = tmp_path_factory.mktemp("shipped") / "embedder"
    folder.mkdir()
    tiny_embedder(folder)
    return ship(folder)


@pytest.fixture
def copied(embedder: Path, tmp_path: Path) -> Path:
    """A copy of the embedding model."""
    return Path(shutil.copytree(embedder, tmp_path / "embedder"))
