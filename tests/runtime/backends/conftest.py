"""A model compiled for TensorRT on a fake GPU, and engines over it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from poolc.compiler.events import Progress
from poolc.compiler.pipeline import Request, compile_model
from poolc.model_cache.artifact import open_artifact
from poolc.model_cache.store import Store
from poolc.runtime.engine import Engine
from poolc.spec import CompileOptions, Target
from tests.runtime.backends.fakes import Fakes, install


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Fakes:
    return install(monkeypatch)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="session")
def compiled(store: Store, tiny_embedder_source: Path) -> Path:
    """A small BERT for tensorrt in fp32, compiled and verified on the fake GPU."""
    with pytest.MonkeyPatch.context() as patch:
        install(patch)
        options = CompileOptions(target=Target.TENSORRT)
        request = Request(str(tiny_embedder_source), options)
        return compile_model(request, store, Progress(lambda event: None)).path


@pytest.fixture
def engine(fakes: Fakes, compiled: Path) -> Iterator[Engine]:
    made = Engine(open_artifact(compiled))
    yield made
    made.close()
