"""Clients that people have: the page's curl, the official OpenAI client, the example."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openai
import pytest

from poolc.runtime.engine import Engine
from tests.serve.processes import ROOT, server_process

TEXTS = ["the quick brown fox", "bread needs flour"]
# The request of vLLM's page, its host aside.
PAGE_CURL = """
curl http://127.0.0.1:8000/v1/embeddings \
  -H 'accept: application/json' \
  -H 'Content-Type: application/json' \
  -d '{
    "input": "Follow the white rabbit.",
    "model": "jinaai/jina-embeddings-v3",
    "encoding_format": "float",
    "dimensions": 32
  }'
"""


@pytest.fixture(scope="module")
def url(tiny_embedder: Path) -> Iterator[str]:
    """A server whose model takes 8, 16 and 32 dimensions."""
    options = "{'hf_overrides': {'matryoshka_dimensions': [8, 16, 32]}}"
    settings = "{'served_model_names': ('jinaai/jina-embeddings-v3',)}"
    with server_process(tiny_embedder, settings=settings, options=options) as server:
        yield server.url


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_of_the_page(url: str) -> None:
    command = PAGE_CURL.strip().replace("http://127.0.0.1:8000", url) + " --silent"
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=True)
    body = json.loads(done.stdout)
    assert list(body) == ["id", "object", "created", "model", "data", "usage"]
    assert body["model"] == "jinaai/jina-embeddings-v3"
    assert list(body["data"][0]) == ["index", "object", "embedding"]
    assert len(body["data"][0]["embedding"]) == 32
    assert list(body["usage"]) == [
        "prompt_tokens",
        "total_tokens",
        "completion_tokens",
        "prompt_tokens_details",
    ]


def test_openai_default_is_base64(client: openai.OpenAI, embedder: Engine) -> None:
    answer = client.embeddings.create(model="any", input=TEXTS)
    vectors = np.array([entry.embedding for entry in answer.data], np.float32)
    assert np.array_equal(vectors, embedder.embed(TEXTS, prompt=""))
    assert answer.usage.prompt_tokens == sum(len(embedder.tokenize(text)) for text in TEXTS)


def test_openai_float_and_dimensions(client: openai.OpenAI, embedder: Engine) -> None:
    answer = client.embeddings.create(
        model="any", input=TEXTS, encoding_format="float", dimensions=16, user="someone"
    )
    vectors = np.array([entry.embedding for entry in answer.data], np.float32)
    assert np.array_equal(vectors, embedder.embed(TEXTS, prompt="", dimensions=16))


def test_openai_token_ids(client: openai.OpenAI, embedder: Engine) -> None:
    ids = embedder.tokenize(TEXTS[0])
    answer = client.embeddings.create(model="any", input=ids)
    assert np.allclose(answer.data[0].embedding, embedder.embed(TEXTS[0], prompt="")[0], atol=1e-6)


def test_openai_async(url: str, embedder: Engine) -> None:
    async def main() -> list[list[float]]:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client:
            asked = (client.embeddings.create(model="any", input=text) for text in TEXTS * 8)
            return [answer.data[0].embedding for answer in await asyncio.gather(*asked)]

    wanted = embedder.embed(TEXTS * 8, prompt="")
    assert np.allclose(asyncio.run(main()), wanted, rtol=0, atol=1e-6)


def test_openai_models(client: openai.OpenAI) -> None:
    (card,) = client.models.list().data
    assert client.models.retrieve(card.id) == card


def test_openai_reads_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model="any", input="x", dimensions=7)
    error = caught.value
    assert (error.code, error.type, error.param) == ("400", "BadRequestError", "dimensions")
    assert "dimensions is 7; this model was trained for: 8, 16, 32" in error.message


def test_openai_example(url: str) -> None:
    script = ROOT / "examples" / "openai_embedding_matryoshka.py"
    command = [sys.executable, "-W", "error", str(script), f"{url}/v1", "32"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    title, vector = done.stdout.splitlines()
    assert title.startswith("jinaai/jina-embeddings-v3: 32 dimensions")
    assert len(json.loads(vector)) == 32
