"""Cohere's embeddings, v1 and v2, and reranking in the dialects that share a path."""

from __future__ import annotations

import base64

import httpx
import numpy as np
import pytest
from sentence_transformers.util.quantization import quantize_embeddings

from poolc.runtime.engine import Engine
from poolc.serve.settings import Settings
from tests.serve.conftest import MakeClient
from tests.serve.speaking import answer, refusal

TEXTS = ["the quick brown fox", "a river runs through the old town", "no"]


@pytest.fixture
def client(embedder: Engine, make_client: MakeClient) -> httpx.AsyncClient:
    return make_client(tiny=embedder)


def test_embed_v2_types(client: httpx.AsyncClient, embedder: Engine) -> None:
    types = ["float", "int8", "uint8", "binary", "ubinary", "base64"]
    body = answer(client, "/v2/embed", texts=TEXTS, model="m",
                  embedding_types=types)  # fmt: skip
    wanted = embedder.embed(TEXTS, prompt="")
    found = body["embeddings"]
    assert list(found) == types
    assert np.array_equal(np.array(found["float"], np.float32), wanted)
    decoded = [np.frombuffer(base64.b64decode(text), "<f4") for text in found["base64"]]
    assert np.array_equal(np.stack(decoded), wanted)
    for kind in ("binary", "ubinary"):
        assert np.array_equal(np.array(found[kind]), quantize_embeddings(wanted, kind))
    for kind, dtype in (("int8", np.int8), ("uint8", np.uint8)):
        offset = 0 if kind == "int8" else 128
        assert np.array_equal(np.array(found[kind], dtype), np.rint(wanted * 127) + offset)
    assert body["texts"] == TEXTS
    assert body["response_type"] == "embeddings_by_type"
    tokens = sum(len(embedder.tokenize(text)) for text in TEXTS)
    assert body["meta"] == {
        "api_version": {"version": "2"},
        "billed_units": {"input_tokens": tokens},
    }


def test_embed_v1_is_a_plain_list(client: httpx.AsyncClient, embedder: Engine) -> None:
    body = answer(client, "/v1/embed", texts=TEXTS, model="m", truncate="NONE")
    rows = np.array(body["embeddings"], np.float32)
    assert np.array_equal(rows, embedder.embed(TEXTS, prompt=""))
    assert body["response_type"] == "embeddings_floats"
    typed = answer(client, "/v1/embed", texts=TEXTS, embedding_types=["float"])
    assert typed["embeddings"] == {"float": body["embeddings"]}


def test_embed_inputs(client: httpx.AsyncClient) -> None:
    inputs = [
        {"content": [{"type": "text", "text": "the quick "}, {"type": "text", "text": "fox"}]}
    ]
    found = answer(client, "/v2/embed", inputs=inputs)
    assert found["texts"] == ["the quick fox"]
    image = [{"content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]
    assert "'image_url'" in refusal(client, "/v2/embed", inputs=image)["message"]
    assert "images" in refusal(client, "/v2/embed", images=["data:"])["message"]


@pytest.mark.parametrize("truncate", ["START", "END"])
def test_embed_truncates(client: httpx.AsyncClient, embedder: Engine, truncate: str) -> None:
    text = "fox river town bread " * 40
    rows = answer(client, "/v2/embed", texts=[text], truncate=truncate)["embeddings"]["float"]
    side = {"START": "left", "END": "right"}[truncate]
    wanted = embedder.embed(text, prompt="", truncate=True, truncation_side=side)
    assert np.array_equal(np.array(rows, np.float32), wanted)
    short = answer(client, "/v2/embed", texts=[text], truncate=truncate, max_tokens=9)
    assert short["meta"]["billed_units"]["input_tokens"] == 9
    refused = refusal(client, "/v2/embed", texts=[text], truncate="NONE")
    assert list(refused) == ["message"]
    assert "send truncate END" in refused["message"]


def test_embed_input_type_is_the_prompt(embedder: Engine, make_client: MakeClient) -> None:
    client = make_client(p=embedder)
    for input_type, name in (("search_query", "query"), ("search_document", "document"),
                             ("classification", None)):  # fmt: skip
        body = answer(client, "/v2/embed", texts=TEXTS, input_type=input_type)
        prompt = embedder.spec.prompts[name] if name else ""
        wanted = embedder.embed([prompt + text for text in TEXTS], prompt="")
        rows = np.array(body["embeddings"]["float"], np.float32)
        assert np.allclose(rows, wanted, atol=1e-6)
    assert "allowed: " in refusal(client, "/v2/embed", texts=TEXTS, input_type="song")["message"]


def test_embed_refuses(client: httpx.AsyncClient) -> None:
    assert "8, 16" in refusal(client, "/v2/embed", texts=["a"], output_dimension=3)["message"]
    assert "not empty" in refusal(client, "/v2/embed", texts=[])["message"]
    assert "not empty" in refusal(client, "/v2/embed")["message"]


# Reranking.


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_rerank(path: str, cross_encoder: Engine, make_client: MakeClient) -> None:
    client = make_client(x=cross_encoder)
    body = answer(client, path, query=TEXTS[0], documents=TEXTS, model="m", top_n=2)
    scores = cross_encoder.score(TEXTS[0], TEXTS)
    order = np.argsort(-scores, kind="stable").tolist()
    assert [result["index"] for result in body["results"]] == order[:2]
    assert [result["relevance_score"] for result in body["results"]] == pytest.approx(
        scores[order[:2]].tolist(), abs=1e-6
    )
    assert [result["document"]["text"] for result in body["results"]] == [
        TEXTS[i] for i in order[:2]
    ]
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] > 0
    objects = [{"text": text} for text in TEXTS]
    bare = answer(client, path, query=TEXTS[0], documents=objects, return_documents=False)
    assert len(bare["results"]) == 3
    assert list(bare["results"][0]) == ["index", "relevance_score"]


def test_rerank_more_than_there_are(cross_encoder: Engine, make_client: MakeClient) -> None:
    client = make_client(x=cross_encoder)
    for top_n in (0, 3, 99):
        body = answer(client, "/v1/rerank", query="fox", documents=TEXTS, top_n=top_n)
        assert len(body["results"]) == 3


def test_rerank_fields_of_documents(cross_encoder: Engine, make_client: MakeClient) -> None:
    client = make_client(x=cross_encoder)
    documents = [{"title": "fox", "body": "runs"}, {"title": "town", "body": "river"}]
    body = answer(client, "/v1/rerank", query="fox", documents=documents,
                  rank_fields=["title", "body"])  # fmt: skip
    assert {result["document"]["text"] for result in body["results"]} == {
        "fox\nruns",
        "town\nriver",
    }


def test_rerank_fields_are_spelled_as_json(cross_encoder: Engine, make_client: MakeClient) -> None:
    client = make_client(x=cross_encoder)
    document = {"a": "fox", "b": None, "c": True, "d": 2.5, "e": ["ü", None], "f": {"g": False}}
    body = answer(client, "/v1/rerank", query="fox", documents=[document, "plain"],
                  rank_fields=[*"abcdef", "none"])  # fmt: skip
    texts = {result["index"]: result["document"]["text"] for result in body["results"]}
    assert texts == {0: 'fox\ntrue\n2.5\n["ü",null]\n{"g":false}', 1: "plain"}
    deep: list[object] = []
    for _ in range(300):
        deep = [deep]
    body = refusal(client, "/v1/rerank", query="fox", documents=[{"a": deep}], rank_fields=["a"])
    assert body["param"] == "documents"


@pytest.mark.parametrize("names", [[["a"]], [1], ["a", None], [{}]])
def test_rerank_fields_are_names(
    cross_encoder: Engine, make_client: MakeClient, names: list[object]
) -> None:
    client = make_client(x=cross_encoder)
    for document in ({"text": "x"}, {"a": "x"}):
        body = refusal(client, "/rerank", query="a", documents=[document], rank_fields=names)
        assert body["param"] == "rank_fields"
        assert body["message"] == "rank_fields: allowed: a list of keys, which are strings"


def test_rerank_takes_cohere_s_budget(cross_encoder: Engine, make_client: MakeClient) -> None:
    client = make_client(x=cross_encoder)
    for asked in (63, 64, 4096):  # the last is Cohere's default
        body = answer(client, "/v2/rerank", query="fox", documents=TEXTS, max_tokens_per_doc=asked)
        assert len(body["results"]) == 3
    for path, texts, field in (
        ("/v2/rerank", {"query": "a", "documents": ["b"]}, "max_tokens_per_query"),
        ("/score", {"text_1": "a", "text_2": "b"}, "max_tokens_per_query"),
        ("/score", {"text_1": "a", "text_2": "b"}, "max_tokens_per_doc"),
    ):
        error = refusal(client, path, **texts, **{field: 64})
        assert error["param"] == field
        assert error["message"].startswith(f"{field} is 64; allowed: 1 to 63 tokens")


def test_rerank_refuses(cross_encoder: Engine, make_client: MakeClient) -> None:
    client = make_client(Settings(max_items=2), x=cross_encoder)
    assert refusal(client, "/v1/rerank", query="a", documents=[])["param"] == "documents"
    assert refusal(client, "/v1/rerank", documents=["a"])["param"] == "query"
    assert "none of: texts, documents" in refusal(client, "/rerank", query="a")["message"]
    assert "3 items" in refusal(client, "/v1/rerank", query="a", documents=TEXTS)["message"]
    image = [{"image": "data:"}]
    assert "image" in refusal(client, "/v1/rerank", query="a", documents=image)["message"]
