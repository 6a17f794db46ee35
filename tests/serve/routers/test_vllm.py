"""vLLM's routes over real models: numbers are the engine's, shapes and messages vLLM's."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from typing import Any

import httpx
import numpy as np
import pytest

from poolc import __version__
from poolc.runtime.engine import Engine
from poolc.serve.settings import Settings
from tests.serve.conftest import MakeClient
from tests.serve.speaking import answer, get, post, refusal

TEXTS = ["the quick brown fox", "a river runs through the old town", "no"]
USAGE = ["prompt_tokens", "total_tokens", "completion_tokens", "prompt_tokens_details"]


@pytest.fixture
def client(embedder: Engine, make_client: MakeClient) -> httpx.AsyncClient:
    return make_client(tiny=embedder)


# Pooling.


def test_pooling_of_an_embedder(client: httpx.AsyncClient, embedder: Engine) -> None:
    body = answer(client, "/pooling", input=TEXTS, model="any")
    assert re.fullmatch("pooling-[0-9a-f]{32}", body.pop("id"))
    assert list(body) == ["object", "created", "model", "data", "usage"]
    assert list(body["usage"]) == USAGE
    rows = np.array([entry["data"] for entry in body["data"]], np.float32)
    assert np.array_equal(rows, embedder.embed(TEXTS, prompt=""))
    assert [entry["object"] for entry in body["data"]] == ["pooling"] * 3


@pytest.mark.parametrize("task", ["token_embed", "encode"])
def test_pooling_of_tokens(client: httpx.AsyncClient, embedder: Engine, task: str) -> None:
    data = answer(client, "/pooling", input=TEXTS[:2], task=task)["data"]
    for entry, row in zip(data, embedder.encode(TEXTS[:2]), strict=True):
        assert np.array_equal(np.array(entry["data"], np.float32), row)


def test_pooling_of_classes(make_client: MakeClient, classifier: Engine) -> None:
    client = make_client(c=classifier)
    probs = [entry["data"] for entry in answer(client, "/pooling", input=TEXTS)["data"]]
    assert np.array_equal(np.array(probs, np.float32), classifier.classify(TEXTS).probs)
    raw = answer(client, "/pooling", input=TEXTS, use_activation=False)["data"]
    logits = classifier.classify(TEXTS, use_activation=False).probs
    assert np.array_equal(np.array([entry["data"] for entry in raw], np.float32), logits)


def test_pooling_of_token_labels(make_client: MakeClient, tagger: Engine) -> None:
    data = answer(make_client(t=tagger), "/pooling", input=TEXTS)["data"]
    for entry, row in zip(data, tagger.classify_tokens(TEXTS, aggregation="none"), strict=True):
        assert np.array_equal(np.array(entry["data"], np.float32), np.asarray(row))


def test_pooling_of_sparse_and_token_vectors(
    make_client: MakeClient, splade: Engine, colbert: Engine
) -> None:
    client = make_client(s=splade, c=colbert)
    (entry,) = answer(client, "/pooling", input=TEXTS[0], model="s")["data"]
    dense = splade.embed_sparse(TEXTS[0], prompt="").to_dense()[0]
    assert np.array_equal(np.array(entry["data"], np.float32), dense)
    (entry,) = answer(client, "/pooling", input=TEXTS[0], model="c")["data"]
    vectors = colbert.embed_tokens(TEXTS[0], prompt="")[0]
    assert np.array_equal(np.array(entry["data"], np.float32), vectors)


def test_pooling_truncates(client: httpx.AsyncClient, embedder: Engine) -> None:
    body = answer(client, "/pooling", input=TEXTS[1], truncate_prompt_tokens=4)
    assert body["usage"]["prompt_tokens"] == 4
    wanted = embedder.embed(TEXTS[1], prompt="", truncate=True, max_length=4)[0]
    assert np.array_equal(np.array(body["data"][0]["data"], np.float32), wanted)


@pytest.mark.parametrize(("endianness", "order"), [("little", "<"), ("big", ">"), ("native", "=")])
def test_pooling_base64(
    client: httpx.AsyncClient, embedder: Engine, endianness: str, order: str
) -> None:
    asked = {"encoding_format": "base64", "embed_dtype": "float16", "endianness": endianness}
    (entry,) = answer(client, "/pooling", input=TEXTS[0], **asked)["data"]
    found = np.frombuffer(base64.b64decode(entry["data"]), f"{order}f2")
    assert np.array_equal(found, embedder.embed(TEXTS[0], prompt="")[0].astype(np.float16))


def test_pooling_bytes(client: httpx.AsyncClient, embedder: Engine) -> None:
    response = post(client, "/pooling", input=TEXTS, task="token_embed", encoding_format="bytes")
    assert response.headers["content-type"] == "application/octet-stream"
    metadata = json.loads(response.headers["metadata"])
    assert list(metadata) == ["id", "created", "model", "data", "usage"]
    for entry, row in zip(metadata["data"], embedder.encode(TEXTS), strict=True):
        part = response.content[entry["start"] : entry["end"]]
        assert np.array_equal(np.frombuffer(part, "=f4").reshape(entry["shape"]), row)
    alone = post(client, "/pooling", input=TEXTS, encoding_format="bytes_only")
    assert "metadata" not in alone.headers
    assert alone.content == embedder.embed(TEXTS, prompt="").tobytes()


@pytest.mark.parametrize("path", ["/pooling", "/v1/embeddings"])
def test_bytes_have_a_header_that_can_be_sent(
    embedder: Engine, make_client: MakeClient, path: str
) -> None:
    client = make_client(Settings(served_model_names=("modèle-猫",)), tiny=embedder)
    own = 'ü\x7f\n"\\'
    response = post(client, path, input="a", encoding_format="bytes", request_id=own)
    header = response.headers["metadata"]
    assert header.isascii()
    assert header.isprintable()
    metadata = json.loads(header)
    assert metadata["model"] == "modèle-猫"
    assert metadata["id"].endswith(f"-{own}")


def test_pooling_refuses(client: httpx.AsyncClient) -> None:
    assert (
        "does not support classify"
        in refusal(client, "/pooling", input="a", task="classify")["message"]
    )
    assert refusal(client, "/pooling", input="a", task="nothing")["param"] == "task"
    assert "8, 16" in refusal(client, "/pooling", input="a", dimensions=3)["message"]
    assert "literal_error" in refusal(client, "/pooling", input="a", embed_dtype="fp4")["message"]


# Classification.


def test_classify(make_client: MakeClient, classifier: Engine) -> None:
    body = answer(make_client(c=classifier), "/classify", input=TEXTS)
    assert re.fullmatch("classify-[0-9a-f]{32}", body["id"])
    found = classifier.classify(TEXTS)
    for i, entry in enumerate(body["data"]):
        assert list(entry) == ["index", "label", "probs", "num_classes"]
        assert (entry["label"], entry["num_classes"]) == (found.labels[i], len(found.names))
        assert np.array_equal(np.array(entry["probs"], np.float32), found.probs[i])


def test_classify_refuses(client: httpx.AsyncClient, make_client: MakeClient) -> None:
    assert "does not support classify" in refusal(client, "/classify", input="a")["message"]
    assert refusal(client, "/classify", input=[])["param"] == "input"
    assert refusal(client, "/classify")["param"] == "input"
    messages = [{"role": "user", "content": "a"}]
    for path in ("/classify", "/pooling", "/v1/embeddings"):
        assert "has no chat template" in refusal(client, path, messages=messages)["message"]


# Scores.

SIDES = [("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2")]


@pytest.mark.parametrize("path", ["/score", "/v1/score"])
@pytest.mark.parametrize(("left", "right"), SIDES)
def test_score_names_of_sides(
    make_client: MakeClient, cross_encoder: Engine, path: str, left: str, right: str
) -> None:
    body = answer(make_client(c=cross_encoder), path, **{left: TEXTS[0], right: TEXTS})
    assert re.fullmatch("score-[0-9a-f]{32}", body["id"])
    assert [list(entry) for entry in body["data"]] == [["index", "object", "score"]] * 3
    scores = np.array([entry["score"] for entry in body["data"]], np.float32)
    assert np.array_equal(scores, cross_encoder.score(TEXTS[0], TEXTS))


def test_score_s_names_are_described(client: httpx.AsyncClient) -> None:
    operation = get(client, "/openapi.json").json()["paths"]["/score"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert schema["anyOf"] == [{"required": list(names)} for names in SIDES]
    assert "required" not in schema
    sides = {name for names in SIDES for name in names}
    assert sides <= set(schema["properties"])
    assert {str(schema["properties"][name]["anyOf"]) for name in sides} == {
        str(schema["properties"]["text_1"]["anyOf"])
    }


def test_score_by_vectors(client: httpx.AsyncClient, embedder: Engine) -> None:
    data = answer(client, "/score", text_1=TEXTS, text_2=TEXTS[::-1])["data"]
    scores = np.array([entry["score"] for entry in data], np.float32)
    assert np.allclose(scores, embedder.score(TEXTS, TEXTS[::-1], prompt=""), atol=1e-6)


def test_score_raw_and_limited(make_client: MakeClient, cross_encoder: Engine) -> None:
    client = make_client(c=cross_encoder)
    asked = {"text_1": TEXTS[1], "text_2": TEXTS[1]}
    data = answer(client, "/score", **asked, use_activation=False, max_tokens_per_doc=3)["data"]
    wanted = cross_encoder.score(TEXTS[1], TEXTS[1], use_activation=False, max_document_length=3)
    assert data[0]["score"] == pytest.approx(float(wanted[0]), abs=1e-6)


def test_score_refuses(client: httpx.AsyncClient) -> None:
    body = refusal(client, "/score", text_1=["a", "b"], text_2=["a", "b", "c"])
    assert "2 and 3 texts" in body["message"]
    image = {"content": [{"type": "image_url", "image_url": {"url": "x"}}]}
    assert "text" in refusal(client, "/score", text_1=image, text_2="a")["message"]
    assert refusal(client, "/score", text_1="a")["param"] == "text_2"


# Tokens, and what is asked of a server.


def test_tokenize_and_back(client: httpx.AsyncClient, embedder: Engine) -> None:
    body = answer(client, "/tokenize", prompt=TEXTS[0], return_token_strs=True)
    assert body["tokens"] == embedder.tokenize(TEXTS[0])
    assert (body["count"], body["max_model_len"]) == (len(body["tokens"]), embedder.max_length)
    assert [body["token_strs"][0], body["token_strs"][-1]] == ["[CLS]", "[SEP]"]
    bare = answer(client, "/tokenize", prompt=TEXTS[0], add_special_tokens=False)
    assert (bare["tokens"], bare["token_strs"]) == (body["tokens"][1:-1], None)
    assert answer(client, "/detokenize", tokens=bare["tokens"])["prompt"] == TEXTS[0]


def test_tokenize_has_no_limit_of_the_model(client: httpx.AsyncClient, embedder: Engine) -> None:
    assert answer(client, "/tokenize", prompt="fox " * 500)["count"] > embedder.max_length
    too_much = refusal(client, "/tokenize", prompt="x" * ((1 << 20) + 1))
    assert "allowed: 1048576" in too_much["message"]
    assert "vocabulary" in refusal(client, "/detokenize", tokens=[10**6])["message"]


def test_version_load_and_ping(client: httpx.AsyncClient) -> None:
    assert get(client, "/version").json() == {"version": __version__}
    assert get(client, "/load").json() == {"server_load": 0}
    assert get(client, "/ping").status_code == post(client, "/ping").status_code == 200


def test_invocations_takes_any_request(
    make_client: MakeClient, embedder: Engine, classifier: Engine, cross_encoder: Engine
) -> None:
    client = make_client(e=embedder, c=classifier, x=cross_encoder)
    path = "/invocations"
    for route, body in (
        ("/v1/embeddings", {"model": "e", "input": TEXTS}),
        ("/pooling", {"model": "e", "input": TEXTS, "task": "token_embed"}),
        ("/classify", {"model": "c", "input": TEXTS}),
        ("/score", {"model": "x", "text_1": TEXTS[0], "text_2": TEXTS}),
        ("/v1/rerank", {"model": "x", "query": TEXTS[0], "documents": TEXTS}),
    ):
        found, wanted = answer(client, path, **body), answer(client, route, **body)
        key = "results" if "results" in wanted else "data"
        assert found[key] == wanted[key]
    assert answer(client, path, inputs=TEXTS) == answer(client, "/embed", inputs=TEXTS)
    assert "none of" in refusal(client, path, nothing=1)["message"]


def test_invocations_keeps_encodings(
    make_client: MakeClient, embedder: Engine, tagger: Engine
) -> None:
    client = make_client(e=embedder, t=tagger)
    asked = {"input": TEXTS, "encoding_format": "bytes_only", "embed_dtype": "float16",
             "endianness": "big"}  # fmt: skip
    found = post(client, "/invocations", model="e", **asked).content
    assert found == embedder.embed(TEXTS, prompt="").astype(">f2").tobytes()
    found = post(client, "/invocations", model="t", **asked).content
    rows = tagger.classify_tokens(TEXTS, aggregation="none")
    assert found == b"".join(np.asarray(row).astype(">f2").tobytes() for row in rows)


# What a request says about itself.


@pytest.mark.parametrize(
    ("path", "prefix", "body"),
    [
        ("/v1/embeddings", "embd", {"input": "a"}),
        ("/pooling", "pooling", {"input": "a"}),
        ("/score", "score", {"text_1": "a", "text_2": "b"}),
        ("/rerank", "score", {"query": "a", "documents": ["b"]}),
    ],
)
def test_replies_are_called_what_the_request_is(
    client: httpx.AsyncClient, path: str, prefix: str, body: dict[str, Any]
) -> None:
    own = answer(client, path, **body, request_id="mine", cache_salt="s", padding="do_not_pad")
    assert own["id"] == f"{prefix}-mine"
    headers = {"X-Request-Id": "7f"}
    response = asyncio.run(client.post(path, json=body, headers=headers))
    assert response.json()["id"] == f"{prefix}-7f"


@pytest.mark.parametrize("field", [{"padding": "max_length"}, {"cache_salt": ""}])
def test_what_cannot_be_honoured_is_named(client: httpx.AsyncClient, field: dict[str, Any]) -> None:
    assert refusal(client, "/pooling", input="a", **field)["param"] == next(iter(field))
