"""Fixtures of the compiler's tests: recognising and compiling in this process."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
import torch
import transformers
from huggingface_hub import constants
from transformers import PreTrainedTokenizerBase

from poolc.api import make_options
from poolc.compiler import pipeline, source
from poolc.compiler.events import Event, Progress
from poolc.compiler.export import export
from poolc.compiler.frontends import pytorch
from poolc.compiler.heads import PoolingModel
from poolc.compiler.recognize import recognize
from poolc.model_cache.artifact import Artifact
from poolc.model_cache.serde import canonical_json, to_plain
from poolc.model_cache.store import Store
from poolc.spec import ModelSpec
from tests.compiler.fake_hub import Hub, serve, stand_in
from tests.compiler.folders import encoder


@dataclass(frozen=True, slots=True)
class Known:
    """What recognition says of a folder."""

    spec: ModelSpec
    tokenizer: PreTrainedTokenizerBase
    warnings: list[str]


Recognise = Callable[..., Known]
CompileHere = Callable[..., Artifact]


@pytest.fixture(scope="session", autouse=True)
def _tame_libraries() -> None:
    """Keep the libraries' notes out of the output, and their threads off the other tests' cores."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store of the test's own."""
    return Store(tmp_path / "store")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that huggingface_hub, in this process, takes for the real one."""
    with serve() as running:
        stand_in(running.url, monkeypatch)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        yield running


@pytest.fixture
def recognise(tmp_path: Path, store: Store) -> Recognise:
    """Recognise a folder with compile options, as the pipeline does."""

    def run(folder: Path, **options: Any) -> Known:
        chosen, progress = make_options(**options), Progress(lambda event: None)
        found = source.fetch(str(folder), chosen, store, progress)
        work = Path(tempfile.mkdtemp(dir=tmp_path))
        read = source.materialize(found, None, chosen, work, progress)
        recognized, tokenizer = recognize(read, chosen, progress.warn)
        return Known(recognized.spec, tokenizer, progress.warnings)

    return run


@pytest.fixture(scope="session")
def plain_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain BERT that no test changes, so that its graph is traced once."""
    return encoder(tmp_path_factory.mktemp("models") / "plain_bert")


@pytest.fixture(scope="session")
def traced() -> dict[str, ir.Model]:
    """Exported graphs by the digest of their models: tracing is nine tenths of a compile."""
    return {}


@pytest.fixture
def compile_here(
    store: Store, traced: dict[str, ir.Model], monkeypatch: pytest.MonkeyPatch
) -> CompileHere:
    """Compile in this process, into ``store``; equal models are traced once."""

    def export_once(model: PoolingModel) -> ir.Model:
        key = _digest(model)
        if key not in traced:
            traced[key] = export(model)
        return traced[key].clone()

    monkeypatch.setattr(pytorch, "export", export_once)

    def run(
        model: Path | str,
        *,
        output: Path | None = None,
        refresh: bool = False,
        events: list[Event] | None = None,
        **options: Any,
    ) -> Artifact:
        request = pipeline.Request(str(model), make_options(**options), output, refresh)
        said: list[Event] = [] if events is None else events
        return pipeline.compile_model(request, store, Progress(said.append))

    return run


def _digest(model: PoolingModel) -> str:
    """Hash what a graph is made from: classes, inputs and weights."""
    digest = hashlib.sha256(repr(model).encode())
    digest.update(repr((model.input_names, getattr(model.head, "kinds", None))).encode())
    digest.update(repr(getattr(model.head, "normalize", None)).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()


def plain_spec(spec: ModelSpec) -> bytes:
    """Return a spec without its origins, for comparing what two folders say."""
    return canonical_json(to_plain(replace(spec, origins={})))
