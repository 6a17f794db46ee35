"""Bodies as clients send them: their headers, and nulls for what their caller left out."""

from __future__ import annotations

import asyncio
import gzip
from typing import Any

import httpx
import pytest

from poolc.runtime.engine import Engine
from tests.serve.conftest import MakeClient
from tests.serve.speaking import answer


@pytest.fixture
def client(embedder: Engine, make_client: MakeClient) -> httpx.AsyncClient:
    return make_client(tiny=embedder)


def sent(client: httpx.AsyncClient, path: str, body: bytes, **headers: str) -> httpx.Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return asyncio.run(client.post(path, content=body, headers=names))


def test_weaviate_s_client_names_no_type(client: httpx.AsyncClient) -> None:
    body = (
        b'{"text":"a cat","dims":0,"vector":null,"error":"",'
        b'"config":{"pooling_strategy":"masked_mean","task_type":"passage"}}'
    )
    response = sent(client, "/vectors", body, User_Agent="Go-http-client/1.1")
    assert response.status_code == 200, response.text
    assert response.json()["dim"] == 32


def test_ollama_s_documentation_sends_a_form_s_type(client: httpx.AsyncClient) -> None:
    body = b'{"model": "all-minilm", "input": "Why is the sky blue?"}'
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    response = sent(client, "/api/embed", body, **form)
    assert response.status_code == 200, response.text
    assert len(response.json()["embeddings"]) == 1


def test_a_compressed_body_is_called_one(client: httpx.AsyncClient) -> None:
    body = gzip.compress(b'{"input":"a cat"}')
    headers = {"Content_Type": "application/json", "Content_Encoding": "gzip"}
    response = sent(client, "/v1/embeddings", body, **headers)
    assert response.status_code == 400
    assert response.json()["message"] == (
        "the Content-Encoding header is 'gzip': send the body uncompressed"
    )
    headers["Content_Encoding"] = "identity"
    assert sent(client, "/v1/embeddings", b'{"input":"a cat"}', **headers).status_code == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/rerank", {"query": "a", "documents": ["b"], "texts": None}),
        ("/rerank", {"query": "a", "documents": None, "texts": ["b"]}),
        ("/score", {"text_1": None, "text_2": None, "data_1": "a", "data_2": "b"}),
        ("/score", {"queries": "a", "documents": None, "items": "b"}),
        ("/tokenize", {"inputs": None, "prompt": "a"}),
        ("/", {"texts": None, "inputs": "a"}),
        ("/invocations", {"task": None, "input": "a"}),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": ["b"]},
                         "parameters": {"truncation_direction": None, "truncate": None}}),
        ("/vectors", {"text": "a", "texts": None, "config": None}),
    ],
)  # fmt: skip
def test_null_is_as_good_as_nothing(
    client: httpx.AsyncClient, path: str, body: dict[str, Any]
) -> None:
    found, bare = answer(client, path, **body), {k: v for k, v in body.items() if v is not None}
    wanted = answer(client, path, **bare)
    for reply in (found, wanted):
        if isinstance(reply, dict):  # these tell requests apart
            reply.pop("id", None)
            reply.pop("created", None)
    assert found == wanted
    if path == "/invocations":
        assert "embedding" in found["data"][0]
