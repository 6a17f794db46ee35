"""OpenAI's routes over a real model: numbers, shapes, and every way of asking wrongly."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest

import poolc
from poolc.errors import BackendError
from poolc.runtime.engine import Engine
from poolc.serve.settings import Settings
from tests.serve.conftest import MakeClient, MakeFake
from tests.serve.fakes import vector_of

TEXTS = ["the quick brown fox", "a river runs through the old town and under seven bridges", "no"]


def send(client: httpx.AsyncClient, method: str, path: str, **options: Any) -> httpx.Response:
    return asyncio.run(client.request(method, path, **options))


def post(client: httpx.AsyncClient, **body: Any) -> httpx.Response:
    return send(client, "POST", "/v1/embeddings", json=body)


@pytest.fixture
def client(embedder: Engine, make_client: MakeClient) -> httpx.AsyncClient:
    return make_client(tiny=embedder)


def vectors_of(response: httpx.Response) -> np.ndarray[Any, np.dtype[np.float32]]:
    assert response.status_code == 200, response.text
    return np.array([entry["embedding"] for entry in response.json()["data"]], np.float32)


def error_of(response: httpx.Response, status: int = 400) -> dict[str, Any]:
    """Check the shape of an error and return its fields."""
    assert response.status_code == status, response.text
    body: dict[str, Any] = response.json()
    same = body.pop("error")
    assert body == same
    assert list(body) == ["object", "message", "type", "param", "code"]
    assert (body["object"], body["code"]) == ("error", status)
    return body


# What works.


def test_embeddings_are_the_engine_s(client: httpx.AsyncClient, embedder: Engine) -> None:
    response = post(client, input=TEXTS)
    assert np.array_equal(vectors_of(response), embedder.embed(TEXTS, prompt=""))
    assert [entry["index"] for entry in response.json()["data"]] == [0, 1, 2]


def test_embeddings_reply_has_the_page_s_keys(client: httpx.AsyncClient, embedder: Engine) -> None:
    body = post(client, input="Follow the white rabbit.", model="any").json()
    tokens = len(embedder.tokenize("Follow the white rabbit."))
    assert re.fullmatch("embd-[0-9a-f]{32}", body.pop("id"))
    assert isinstance(body.pop("created"), int)
    (data,) = body.pop("data")
    assert list(data) == ["index", "object", "embedding"]
    assert body == {
        "object": "list",
        "model": "tiny",  # what the server calls it, as vLLM does
        "usage": {
            "prompt_tokens": tokens,
            "total_tokens": tokens,
            "completion_tokens": 0,
            "prompt_tokens_details": None,
        },
    }


def test_embeddings_names_artifact_and_space(client: httpx.AsyncClient, embedder: Engine) -> None:
    headers = post(client, input="text").headers
    assert headers["x-poolc-artifact"] == embedder.artifact.artifact_id
    assert headers["x-poolc-space"] == embedder.artifact.space_id


def test_embeddings_without_v1(client: httpx.AsyncClient) -> None:
    assert send(client, "POST", "/embeddings", json={"input": "text"}).status_code == 200


def test_embeddings_base64(client: httpx.AsyncClient, embedder: Engine) -> None:
    data = post(client, input=TEXTS, encoding_format="base64").json()["data"]
    vectors = [np.frombuffer(base64.b64decode(entry["embedding"]), "<f4") for entry in data]
    assert np.array_equal(np.stack(vectors), embedder.embed(TEXTS, prompt=""))


@pytest.mark.parametrize(
    ("asked", "dtype"),
    [
        ({"embed_dtype": "float16"}, "<f2"),
        ({"endianness": "big"}, ">f4"),
        ({"embed_dtype": "float16", "endianness": "big"}, ">f2"),
        ({"endianness": "native"}, "=f4"),
    ],
)
def test_embeddings_encodings_of_vllm(
    client: httpx.AsyncClient, embedder: Engine, asked: dict[str, str], dtype: str
) -> None:
    wanted = embedder.embed(TEXTS, prompt="").astype(dtype)
    data = post(client, input=TEXTS, encoding_format="base64", **asked).json()["data"]
    found = [np.frombuffer(base64.b64decode(entry["embedding"]), dtype) for entry in data]
    assert np.array_equal(np.stack(found), wanted)
    alone = post(client, input=TEXTS, encoding_format="bytes_only", **asked)
    assert alone.headers["content-type"] == "application/octet-stream"
    assert "metadata" not in alone.headers
    assert alone.content == wanted.tobytes()
    floats = vectors_of(post(client, input=TEXTS, **asked))  # neither says anything of them
    assert np.array_equal(floats, embedder.embed(TEXTS, prompt=""))


@pytest.mark.parametrize("embed_dtype", ["bfloat16", "fp8_e4m3", "fp8_e5m2"])
def test_embeddings_small_numbers_are_pooling_s(
    client: httpx.AsyncClient, embed_dtype: str
) -> None:
    asked = {"input": TEXTS, "encoding_format": "bytes_only", "embed_dtype": embed_dtype}
    found, wanted = post(client, **asked), send(client, "POST", "/pooling", json=asked)
    assert found.content == wanted.content
    assert len(found.content) == len(TEXTS) * 32 * (2 if embed_dtype == "bfloat16" else 1)


def test_embeddings_bytes(client: httpx.AsyncClient, embedder: Engine) -> None:
    texts = ["bread", "bread " * 200]
    asked = {"truncate_prompt_tokens": -1, "encoding_format": "bytes", "embed_dtype": "float16"}
    response = post(client, input=texts, **asked)
    metadata = orjson.loads(response.headers["metadata"])
    assert list(metadata) == ["id", "created", "model", "data", "usage"]
    assert metadata["data"] == [
        {"index": 0, "embed_dtype": "float16", "endianness": "native", "start": 0, "end": 64,
         "shape": [32]},
        {"index": 1, "embed_dtype": "float16", "endianness": "native", "start": 64, "end": 128,
         "shape": [32], "truncated": True},
    ]  # fmt: skip
    wanted = embedder.embed(texts, prompt="", truncate=True)
    assert response.content == wanted.astype("=f2").tobytes()


def test_embeddings_encodings_are_checked(client: httpx.AsyncClient) -> None:
    for wrong in ({"embed_dtype": "fp4"}, {"endianness": "middle"}):
        assert error_of(post(client, input="x", **wrong))["param"] == next(iter(wrong))
    for asked in ({"encoding_format": "bytes"}, {"embed_dtype": "float16"}):
        error = error_of(post(client, input="x", embedding_type="binary", **asked))
        assert error["param"] == "embedding_type"


def test_embeddings_packed_bits_as_base64(client: httpx.AsyncClient, embedder: Engine) -> None:
    asked = {"encoding_format": "base64", "embedding_type": "ubinary"}  # OpenAI's client, Jina's
    data = post(client, input=TEXTS, **asked).json()["data"]
    found = [np.frombuffer(base64.b64decode(entry["embedding"]), "u1") for entry in data]
    wanted = embedder.embed(TEXTS, prompt="", output_dtype="ubinary")
    assert np.array_equal(np.stack(found), wanted)


def test_embeddings_floats_are_the_shortest(make_client: MakeClient, make_fake: MakeFake) -> None:
    fake = make_fake()
    third = np.float32(1) / 3
    fake.finish = lambda prepared, rows: np.array([[third, 0.1, 1e-9, -2]], np.float32)  # type: ignore[method-assign]
    assert b"[0.33333334,0.1,1e-9,-2.0]" in post(make_client(m=fake.engine), input="x").content


def test_embeddings_token_ids(client: httpx.AsyncClient, embedder: Engine) -> None:
    ids = [embedder.tokenize(text) for text in TEXTS]
    wanted = embedder.embed(TEXTS, prompt="")
    assert np.array_equal(vectors_of(post(client, input=ids)), wanted)
    assert np.allclose(vectors_of(post(client, input=ids[1]))[0], wanted[1], atol=1e-6)


@pytest.mark.parametrize("dimensions", [8, 16])
def test_embeddings_dimensions(
    client: httpx.AsyncClient, embedder: Engine, dimensions: int
) -> None:
    vectors = vectors_of(post(client, input=TEXTS, dimensions=dimensions))
    assert np.array_equal(vectors, embedder.embed(TEXTS, prompt="", dimensions=dimensions))
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_embeddings_prompts(client: httpx.AsyncClient, embedder: Engine) -> None:
    named = vectors_of(post(client, input=TEXTS, prompt_name="query"))
    assert np.array_equal(named, embedder.embed(TEXTS, prompt_name="query"))
    assert not np.array_equal(named, embedder.embed(TEXTS, prompt=""))


def test_embeddings_own_prompt(client: httpx.AsyncClient, embedder: Engine) -> None:
    own = vectors_of(post(client, input=TEXTS, prompt="bread: "))
    assert np.array_equal(own, embedder.embed(TEXTS, prompt="bread: "))


def test_embeddings_not_normalized(client: httpx.AsyncClient, embedder: Engine) -> None:
    vectors = vectors_of(post(client, input=TEXTS, normalize=False))
    assert np.array_equal(vectors, embedder.embed(TEXTS, prompt="", normalize=False))
    assert not np.allclose(np.linalg.norm(vectors, axis=1), 1)


@pytest.mark.parametrize(("asked", "tokens"), [(-1, 64), (64, 64), (10, 10)])
def test_embeddings_truncated(client: httpx.AsyncClient, asked: int, tokens: int) -> None:
    response = post(client, input="bread " * 200, truncate_prompt_tokens=asked)
    assert response.json()["usage"]["prompt_tokens"] == tokens


def test_embeddings_say_which_texts_were_cut(client: httpx.AsyncClient) -> None:
    response = post(client, input=["bread", "bread " * 200], truncate_prompt_tokens=-1)
    assert [entry.get("truncated") for entry in response.json()["data"]] == [None, True]


def test_embeddings_without_special_tokens(client: httpx.AsyncClient, embedder: Engine) -> None:
    response = post(client, input="bread", add_special_tokens=False)
    bare = embedder.tokenize("bread", add_special_tokens=False)
    assert response.json()["usage"]["prompt_tokens"] == len(bare)


def test_embeddings_ignores_what_it_does_not_know(client: httpx.AsyncClient) -> None:
    response = post(client, input="x", user="u", encoding_format=None, priority=3, extra={"a": []})
    assert response.status_code == 200


def test_embeddings_media_type_may_have_parameters(client: httpx.AsyncClient) -> None:
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    response = send(client, "POST", "/v1/embeddings", content=b'{"input":"x"}', headers=headers)
    assert response.status_code == 200


@pytest.mark.parametrize("encoding_format", ["float", "base64"])
def test_embeddings_ten_thousand_texts(
    make_client: MakeClient, make_fake: MakeFake, encoding_format: str
) -> None:
    texts = [f"text {n}" for n in range(10_000)]
    client = make_client(m=make_fake(budget=4096).engine)
    body = orjson.loads(post(client, input=texts, encoding_format=encoding_format).content)
    data = [entry["embedding"] for entry in body["data"]]
    if encoding_format == "base64":
        data = [np.frombuffer(base64.b64decode(text), "<f4") for text in data]
    wanted = np.stack([vector_of(text) for text in texts])
    assert np.array_equal(np.array(data, np.float32), wanted)
    assert body["usage"]["prompt_tokens"] == sum(map(len, texts))


def test_embeddings_many_at_once(embedder: Engine, make_client: MakeClient) -> None:
    asked = [[f"{text} {n}" for text in TEXTS[: 1 + n % 3]] for n in range(24)]

    async def main() -> list[httpx.Response]:
        async with make_client(tiny=embedder) as client:
            posts = (client.post("/v1/embeddings", json={"input": texts}) for texts in asked)
            return await asyncio.gather(*posts)

    for texts, response in zip(asked, asyncio.run(main()), strict=True):
        # Not bit for bit: the texts ran beside others here.
        wanted = embedder.embed(texts, prompt="")
        assert np.allclose(vectors_of(response), wanted, rtol=0, atol=1e-6)


# What does not.


def test_embeddings_matryoshka_not_supported(tiny_embedder: Path, make_client: MakeClient) -> None:
    overrides = {"is_matryoshka": False, "matryoshka_dimensions": []}
    engine = poolc.load(tiny_embedder, hf_overrides=overrides)
    client = make_client(Settings(served_model_names=("BAAI/bge-m3",)), tiny=engine)
    assert error_of(post(client, input="x", dimensions=32, model="other")) == {
        "object": "error",
        "message": 'Model "BAAI/bge-m3" does not support matryoshka representation, '
        "changing output dimensions will lead to poor results.",
        "type": "BadRequestError",
        "param": None,
        "code": 400,
    }


@pytest.mark.parametrize("dimensions", [0, -1, 7, 32, 1 << 70])
def test_embeddings_dimensions_refused(client: httpx.AsyncClient, dimensions: int) -> None:
    error = error_of(post(client, input="x", dimensions=dimensions))
    assert error["param"] == "dimensions"
    assert error["type"] == "BadRequestError"


@pytest.mark.parametrize(
    ("body", "message", "param"),
    [
        (b"", "not valid JSON", None),
        (b"{", "not valid JSON", None),
        (b'"text"', "must be a JSON object", None),
        (b"[]", "must be a JSON object", None),
        (b'{"input":"\\ud800"}', "not valid JSON", None),
        (b'{"input":"\xff"}', "not valid JSON", None),
        (b'{"input":"x","a":NaN}', "not valid JSON", None),
        (b'{"input":' + b"[" * 2000 + b"]" * 2000 + b"}", "not valid JSON", None),
        (b"{}", "input is missing", "input"),
        (b'{"input":null}', "input is missing", "input"),
        (b'{"input":[]}', "the list is empty", "input"),
        (b'{"input":[["x"]]}', "allowed: a text", "input"),
        (b'{"input":["x",1]}', "allowed: a text", "input"),
        (b'{"input":[true]}', "allowed: a text", "input"),
        (b'{"input":[[1],[2.5]]}', "allowed: a text", "input"),
        (b'{"input":{"text":"x"}}', "allowed: a text", "input"),
        (b'{"input":""}', "item 0 is empty", None),
        (b'{"input":["x",""]}', "item 1 is empty", None),
        (b'{"input":[[1],[]]}', "item 1 is an empty list", None),
        (b'{"input":[[1],[99999]]}', "outside the vocabulary", None),
        (b'{"input":[-1]}', "outside the vocabulary", None),
        (b'{"input":[18446744073709551615]}', "allowed: a text", "input"),
        (b'{"input":"x","dimensions":"8"}', "valid integer", "dimensions"),
        (b'{"input":"x","dimensions":8.5}', "valid integer", "dimensions"),
        (b'{"input":"x","encoding_format":"hex"}', "'hex' (literal_error)", "encoding_format"),
        (b'{"input":"x","model":7}', "valid string", "model"),
        (b'{"input":"x","truncate_prompt_tokens":0}', "allowed: 1 to 64", "truncate_prompt_tokens"),
        (b'{"input":"x","truncate_prompt_tokens":-2}', "allowed: 1", "truncate_prompt_tokens"),
        (b'{"input":"x","truncate_prompt_tokens":65}', "allowed: 1", "truncate_prompt_tokens"),
        (b'{"input":"x","prompt_name":"none such"}', "query", "prompt_name"),
    ],
)
def test_embeddings_refuses(
    client: httpx.AsyncClient, body: bytes, message: str, param: str | None
) -> None:
    headers = {"Content-Type": "application/json"}
    error = error_of(send(client, "POST", "/v1/embeddings", content=body, headers=headers))
    assert message in error["message"]
    assert (error["type"], error["param"]) == ("BadRequestError", param)


def test_embeddings_too_long(client: httpx.AsyncClient) -> None:
    error = error_of(post(client, input=["x", "bread " * 200]))
    assert "item 1 has 202 tokens; the limit is 64" in error["message"]


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded"])
def test_embeddings_content_type(client: httpx.AsyncClient, media_type: str) -> None:
    headers = {"Content-Type": media_type}
    response = send(client, "POST", "/v1/embeddings", content=b'{"input":"x"}', headers=headers)
    assert "allowed: application/json" in error_of(response)["message"]


def test_embeddings_without_content_type(client: httpx.AsyncClient) -> None:
    response = send(client, "POST", "/v1/embeddings", content=b'{"input":"x"}')
    assert response.status_code == 200


def test_embeddings_body_too_large(embedder: Engine, make_client: MakeClient) -> None:
    client = make_client(Settings(max_body_bytes=100), tiny=embedder)
    error = error_of(post(client, input="x" * 100), 413)
    assert "100 bytes" in error["message"]


def test_embeddings_too_many(embedder: Engine, make_client: MakeClient) -> None:
    client = make_client(Settings(max_items=2), tiny=embedder)
    assert "3 items; this server takes 2" in error_of(post(client, input=TEXTS))["message"]


def test_embeddings_of_a_classifier(classifier: Engine, make_client: MakeClient) -> None:
    error = error_of(post(make_client(tiny=classifier), input="x", dimensions=8))
    assert "does not support embed" in error["message"]


def test_embeddings_unknown_model(embedder: Engine, make_client: MakeClient) -> None:
    client = make_client(Settings(strict_model_name=True), tiny=embedder)
    error = error_of(post(client, input="x", model="x"), 404)
    assert error["message"] == "The model `x` does not exist."
    assert error["type"] == "NotFoundError"


def test_embeddings_overloaded(make_client: MakeClient, make_fake: MakeFake) -> None:
    fake = make_fake(streams=1)
    fake.hold()

    async def main() -> httpx.Response:
        async with make_client(Settings(max_queued_tokens=5), m=fake.engine) as client:
            first = asyncio.ensure_future(client.post("/v1/embeddings", json={"input": "12345"}))
            await asyncio.to_thread(fake.wait_until_started, 1)
            second = await client.post("/v1/embeddings", json={"input": "6"})
            fake.release()
            assert (await first).status_code == 200
            return second

    refused = asyncio.run(main())
    assert "queue is full" in error_of(refused, 429)["message"]
    assert int(refused.headers["retry-after"]) >= 1


@pytest.mark.parametrize("failure", [BackendError("/secret"), RuntimeError("/secret")])
def test_embeddings_model_fails(
    make_client: MakeClient,
    make_fake: MakeFake,
    failure: Exception,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fake = make_fake()
    fake.failure = failure
    response = post(make_client(m=fake.engine), input="poison")
    assert error_of(response, 500)["type"] == "InternalServerError"
    assert "/secret" not in response.text
    if isinstance(failure, BackendError):  # others are logged by uvicorn, which raises them
        assert "/secret" in caplog.text


def test_embeddings_not_finite(make_client: MakeClient, make_fake: MakeFake) -> None:
    fake = make_fake()
    fake.finish = lambda prepared, rows: np.array([[np.nan]], np.float32)  # type: ignore[method-assign]
    error_of(post(make_client(m=fake.engine), input="x"), 500)


def test_embeddings_client_leaves(make_client: MakeClient, make_fake: MakeFake) -> None:
    """A request whose client left while it waited is never computed."""
    fake = make_fake(streams=1)
    fake.hold()

    async def main() -> None:
        async with make_client(m=fake.engine) as client:
            first = asyncio.ensure_future(client.post("/v1/embeddings", json={"input": "first"}))
            await asyncio.to_thread(fake.wait_until_started, 1)
            await leaving(client, b'{"input":"gone"}')
            fake.release()
            assert (await first).status_code == 200

    asyncio.run(main())
    assert fake.started == [["first"]]


async def leaving(client: httpx.AsyncClient, body: bytes) -> None:
    """Send a request and hang up; return when the application has let it go."""
    transport = client._transport
    assert isinstance(transport, httpx.ASGITransport)
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": body},
        {"type": "http.disconnect"},
    ]
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def deliver(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json")]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/embeddings",
        "headers": headers,
        "query_string": b"",
    }
    await transport.app(scope, receive, deliver)
    assert sent[0]["status"] == 499


# Other routes.


def test_models(embedder: Engine, make_client: MakeClient) -> None:
    client = make_client(Settings(served_model_names=("org/a", "b")), tiny=embedder)
    body = send(client, "GET", "/v1/models").json()
    assert body["object"] == "list"
    assert [(card["id"], card["root"]) for card in body["data"]] == [
        ("org/a", "org/a"),
        ("b", "org/a"),
    ]
    assert {card["max_model_len"] for card in body["data"]} == {64}


def test_models_by_name(embedder: Engine, make_client: MakeClient) -> None:
    settings = Settings(served_model_names=("org/a",))
    card = send(make_client(settings, tiny=embedder), "GET", "/v1/models/org/a").json()
    assert (card["id"], card["object"], card["owned_by"]) == ("org/a", "model", "poolc")
    missing = send(make_client(settings, tiny=embedder), "GET", "/models/org/b")
    assert error_of(missing, 404)["message"] == "The model `org/b` does not exist."


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/nowhere", 404, "NotFoundError"),
        ("POST", "/v1", 404, "NotFoundError"),
        ("GET", "/v1/embeddings", 405, "MethodNotAllowedError"),
        ("DELETE", "/health", 405, "MethodNotAllowedError"),
    ],
)
def test_unknown_routes(
    client: httpx.AsyncClient, method: str, path: str, status: int, kind: str
) -> None:
    error = error_of(send(client, method, path), status)
    assert error["type"] == kind
    assert path in error["message"]


def test_openapi_tells_the_truth(client: httpx.AsyncClient) -> None:
    operation = send(client, "GET", "/openapi.json").json()["paths"]["/v1/embeddings"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert schema["oneOf"] == [{"required": ["input"]}, {"required": ["messages"]}]
    kinds = schema["properties"]["input"]["anyOf"]
    assert [kind["type"] for kind in kinds] == ["string", *["array"] * 4, "null"]
    assert set(operation["responses"]) == {
        "200",
        "400",
        "401",
        "404",
        "413",
        "429",
        "500",
        "503",
        "504",
    }
    reply = operation["responses"]["200"]["content"]["application/json"]["schema"]
    assert reply == {"$ref": "#/components/schemas/EmbeddingReply"}


def test_two_models(embedder: Engine, make_client: MakeClient, make_fake: MakeFake) -> None:
    settings = Settings(served_model_names=("tiny", "fake"))

    def ask(model: str) -> httpx.Response:
        client = make_client(settings, a=embedder, b=make_fake().engine)
        return post(client, input="x", model=model)

    assert vectors_of(ask("tiny")).shape == (1, 32)
    assert vectors_of(ask("fake")).shape == (1, 4)
    error_of(ask("other"), 404)


def test_spellings_of_vllm(client: httpx.AsyncClient, embedder: Engine) -> None:
    raw = embedder.embed(TEXTS, prompt="", normalize=False)
    assert np.array_equal(vectors_of(post(client, input=TEXTS, use_activation=False)), raw)
    error = error_of(post(client, input=TEXTS, use_activation=False, normalize=True))
    assert error["message"] == "normalize and use_activation mean the same and differ: give one"
    long = "flour " * 100 + "bread"
    for side in ("left", "right"):
        found = post(client, input=long, truncate_prompt_tokens=8, truncation_side=side)
        wanted = embedder.embed(long, prompt="", truncate=True, max_length=8, truncation_side=side)
        assert np.array_equal(vectors_of(found), wanted)
    assert "truncation_side" in error_of(post(client, input="a", truncation_side="up"))["message"]


def test_side(client: httpx.AsyncClient, embedder: Engine) -> None:
    found = vectors_of(post(client, input=TEXTS, side="query"))
    assert np.array_equal(found, embedder.embed_query(TEXTS))
    own = vectors_of(post(client, input=TEXTS, side="query", prompt=""))
    assert np.array_equal(own, embedder.embed(TEXTS, prompt=""))
    message = error_of(post(client, input="a", side="title"))["message"]
    assert message == "side is 'title'; allowed: query, document, plain, or None"


def test_too_long_says_what_a_request_can(client: httpx.AsyncClient) -> None:
    message = error_of(post(client, input="bread " * 100))["message"]
    assert message.endswith("shorten it, split it, or send truncate_prompt_tokens -1 to cut it")
