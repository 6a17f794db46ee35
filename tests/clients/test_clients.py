"""Real clients against a live server on a real port: their vectors are the engine's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from poolc.runtime.engine import Engine
from tests.clients.environments import FOLDER, ROOT, SETS, node_folder, python_of
from tests.serve.processes import server_process

PROGRAMS = Path(__file__).parent / "programs"
TEXTS = ["the quick brown fox", "a river runs through the old town", "bread needs flour"]
KEY = "a key"
CL100K = "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"  # what tiktoken calls cl100k_base in its cache


@pytest.fixture(scope="module")
def url(tiny_embedder: Path) -> Iterator[str]:
    settings = f"{{'api_keys': ('{KEY}',)}}"
    with server_process(tiny_embedder, settings=settings) as server:
        yield server.url


@pytest.fixture(scope="module")
def vocabulary() -> Path:
    """tiktoken's file of cl100k, as LiteLLM brings it."""
    found = python_of("plain").parents[1].rglob(CL100K)
    return next(found)


@pytest.fixture(scope="module")
def cl100k_url(tiny_embedder: Path, vocabulary: Path) -> Iterator[str]:
    """A server for clients that send token ids of OpenAI's models."""
    settings = {"api_keys": (KEY,), "token_ids": "cl100k", "cl100k_file": str(vocabulary)}
    with server_process(tiny_embedder, settings=repr(settings)) as server:
        yield server.url


@pytest.fixture(scope="module")
def expected(embedder: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What programs compare with: texts, their vectors, and how well they answer the first."""
    scores = embedder.score(TEXTS[0], TEXTS, prompt="")
    content = {
        "texts": TEXTS,
        "vectors": embedder.embed(TEXTS, prompt="").tolist(),
        "documents": embedder.embed(TEXTS, prompt_name="document").tolist(),
        "int8": np.rint(embedder.embed(TEXTS, prompt_name="document") * 127).tolist(),
        "order": np.argsort(-scores, kind="stable").tolist(),
        "scores": sorted(scores.tolist(), reverse=True),
    }
    path = tmp_path_factory.mktemp("clients") / "expected.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.slow
@pytest.mark.timeout(600)  # the first run installs packages
@pytest.mark.parametrize("name", list(SETS))
def test_python_clients(name: str, url: str, expected: Path) -> None:
    program = PROGRAMS / f"{name}_clients.py"
    _run([str(python_of(name)), str(program), url, str(expected), KEY], ROOT)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_langchain_as_it_comes(cl100k_url: str, vocabulary: Path, expected: Path) -> None:
    program = PROGRAMS / "langchain_defaults.py"
    command = [str(python_of("langchain")), str(program), cl100k_url, str(expected), KEY]
    _run(command, ROOT, TIKTOKEN_CACHE_DIR=str(vocabulary.parent))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_node_client(url: str, expected: Path) -> None:
    folder = node_folder()
    shutil.copyfile(PROGRAMS / "openai.mjs", folder / "openai.mjs")
    _run(["node", "openai.mjs", url, str(expected), KEY], folder)


def _run(command: list[str], folder: Path, **variables: str) -> None:
    environment = {
        **os.environ,
        **variables,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "HAYSTACK_TELEMETRY_ENABLED": "False",
        "HF_HOME": str(FOLDER / "hub"),
    }
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
