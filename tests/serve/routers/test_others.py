"""Jina's fields of OpenAI's route, Ollama and Weaviate, over a real model."""

from __future__ import annotations

import httpx
import numpy as np
import pytest

from poolc.runtime.engine import Engine
from tests.serve.conftest import MakeClient, MakeFake
from tests.serve.speaking import answer, get, refusal

TEXTS = ["the quick brown fox", "a river runs through the old town", "no"]


@pytest.fixture
def client(embedder: Engine, make_client: MakeClient) -> httpx.AsyncClient:
    return make_client(tiny=embedder)


def test_jina_objects_and_types(client: httpx.AsyncClient, embedder: Engine) -> None:
    items = [{"text": text} for text in TEXTS]
    asked = {"input": items, "task": "retrieval.passage", "embedding_type": "ubinary"}
    data = answer(client, "/v1/embeddings", **asked)["data"]
    wanted = embedder.embed(TEXTS, prompt_name="document", output_dtype="ubinary")
    assert np.array_equal(np.array([entry["embedding"] for entry in data]), wanted)
    raw = answer(client, "/v1/embeddings", input=TEXTS, normalized=False)["data"]
    assert np.allclose(
        np.array([entry["embedding"] for entry in raw], np.float32),
        embedder.embed(TEXTS, prompt="", normalize=False),
        atol=1e-6,
    )


def test_jina_truncates(client: httpx.AsyncClient, embedder: Engine) -> None:
    text = "fox river town bread " * 40
    body = answer(client, "/v1/embeddings", input=text, truncate=True)
    assert body["usage"]["prompt_tokens"] == embedder.max_length
    assert body["data"][0]["truncated"] is True


def test_jina_task_is_the_prompt(embedder: Engine, make_client: MakeClient) -> None:
    client = make_client(p=embedder)
    for task, name in (("retrieval.query", "query"), ("retrieval.passage", "document")):
        data = answer(client, "/v1/embeddings", input=TEXTS, task=task)["data"]
        wanted = embedder.embed(TEXTS, prompt_name=name)
        rows = np.array([entry["embedding"] for entry in data], np.float32)
        assert np.array_equal(rows, wanted)


def test_jina_task_without_a_prompt(client: httpx.AsyncClient, embedder: Engine) -> None:
    for task in ("text-matching", "classification", "separation", "code.query"):
        data = answer(client, "/v1/embeddings", input=TEXTS, task=task)["data"]
        rows = np.array([entry["embedding"] for entry in data], np.float32)
        assert np.array_equal(rows, embedder.embed(TEXTS, prompt=""))


def test_jina_task_that_is_none(
    client: httpx.AsyncClient, embedder: Engine, make_client: MakeClient, make_fake: MakeFake
) -> None:
    error = refusal(client, "/v1/embeddings", input=TEXTS, task="retrieval.qurey")
    assert error["param"] == "task"
    assert error["message"].startswith("task is 'retrieval.qurey'; allowed: ")
    allowed = error["message"].partition("allowed: ")[2].split(", ")
    assert {*embedder.spec.prompts, "retrieval.query", "text-matching"} <= set(allowed)
    # Of a model that has no prompts, no task means anything.
    plain = make_client(m=make_fake().engine)
    assert answer(plain, "/v1/embeddings", input="a", task="retrieval.qurey")["data"]


def test_jina_refuses(client: httpx.AsyncClient) -> None:
    image = [{"image": "data:"}]
    assert "text only" in refusal(client, "/v1/embeddings", input=image)["message"]


def test_ollama(client: httpx.AsyncClient, embedder: Engine) -> None:
    body = answer(client, "/api/embed", model="m", input=TEXTS, options={"num_ctx": 8})
    assert np.array_equal(
        np.array(body["embeddings"], np.float32), embedder.embed(TEXTS, prompt="")
    )
    assert body["prompt_eval_count"] == sum(len(embedder.tokenize(text)) for text in TEXTS)
    long = "fox river town bread " * 40
    assert answer(client, "/api/embed", input=long)["prompt_eval_count"] == embedder.max_length
    assert list(refusal(client, "/api/embed", input=long, truncate=False)) == ["error"]


def test_weaviate(client: httpx.AsyncClient, embedder: Engine) -> None:
    config = {"pooling_strategy": "masked_mean", "task_type": "query"}
    one = answer(client, "/vectors", text=TEXTS[0], config=config)
    assert np.array_equal(
        np.array([one["vector"]], np.float32), embedder.embed(TEXTS[:1], prompt_name="query")
    )
    assert (one["text"], one["dim"]) == (TEXTS[0], 32)
    several = answer(client, "/vectors", texts=TEXTS)
    assert np.array_equal(
        np.array(several["vectors"], np.float32), embedder.embed(TEXTS, prompt="")
    )
    assert list(refusal(client, "/vectors")) == ["error"]
    assert get(client, "/meta").json()["model_path"] == "tiny"
    for probe in ("ready", "live"):
        assert get(client, f"/.well-known/{probe}").status_code == 204


def test_openapi_has_every_route(client: httpx.AsyncClient) -> None:
    described = get(client, "/openapi.json").json()
    for path in ("/embed", "/v1/rerank", "/v2/embed", "/pooling", "/vectors", "/api/embed"):
        body = described["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        assert "#/$defs" not in str(body)
