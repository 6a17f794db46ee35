"""text-embeddings-inference's routes over real models; its clients name no model."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest

from poolc.runtime.engine import Engine
from tests.serve.conftest import MakeClient
from tests.serve.speaking import answer, get, post, refusal

TEXTS = ["the quick brown fox", "a river runs through the old town", "no"]


@pytest.fixture
def client(
    embedder: Engine,
    classifier: Engine,
    cross_encoder: Engine,
    splade: Engine,
    make_client: MakeClient,
) -> httpx.AsyncClient:
    return make_client(e=embedder, x=cross_encoder, c=classifier, s=splade)


@pytest.mark.parametrize("path", ["/embed", "/"])
def test_embed(client: httpx.AsyncClient, embedder: Engine, path: str) -> None:
    rows = np.array(answer(client, path, inputs=TEXTS), np.float32)
    assert np.array_equal(rows, embedder.embed(TEXTS, prompt=""))
    one = np.array(answer(client, path, inputs=TEXTS[0], normalize=False), np.float32)
    assert np.allclose(one, embedder.embed(TEXTS[0], prompt="", normalize=False), atol=1e-6)
    ids = [embedder.tokenize(text) for text in TEXTS]
    assert np.array_equal(np.array(answer(client, path, inputs=ids), np.float32), rows)


@pytest.mark.parametrize("direction", ["Left", "left", "Right", "right"])
def test_embed_truncates(client: httpx.AsyncClient, embedder: Engine, direction: str) -> None:
    text = "fox river town bread " * 40
    asked = {"truncate": True, "truncation_direction": direction}
    rows = np.array(answer(client, "/embed", inputs=text, **asked), np.float32)
    wanted = embedder.embed(text, prompt="", truncate=True, truncation_side=direction.lower())
    assert np.array_equal(rows, wanted)
    body = refusal(client, "/embed", inputs=text)
    assert list(body) == ["error", "error_type"]
    assert body["error_type"] == "Validation"
    assert "send truncate true" in body["error"]


def test_embed_all_and_sparse(client: httpx.AsyncClient, embedder: Engine, splade: Engine) -> None:
    for row, wanted in zip(
        answer(client, "/embed_all", inputs=TEXTS), embedder.encode(TEXTS), strict=True
    ):
        assert np.array_equal(np.array(row, np.float32), wanted)
    for pairs, vector in zip(
        answer(client, "/embed_sparse", inputs=TEXTS),
        splade.embed_sparse(TEXTS, prompt=""),
        strict=True,
    ):
        assert [pair["index"] for pair in pairs] == vector.indices.tolist()
        assert np.array_equal(np.array([p["value"] for p in pairs], np.float32), vector.values)


def test_predict(client: httpx.AsyncClient, classifier: Engine) -> None:
    body = {"model": "c"}
    single = answer(client, "/predict", inputs=TEXTS[0], **body)
    assert [entry["score"] for entry in single] == sorted(
        (entry["score"] for entry in single), reverse=True
    )
    found = classifier.classify(TEXTS)
    assert single[0]["label"] == found.labels[0]
    assert {entry["label"] for entry in single} == {*found.names}
    batch = answer(client, "/predict", inputs=[[text] for text in TEXTS], **body)
    assert [rows[0]["label"] for rows in batch] == found.labels
    assert [rows[0]["score"] for rows in batch] == pytest.approx(found.probs.max(axis=1).tolist())
    raw = answer(client, "/predict", inputs=TEXTS[0], raw_scores=True, **body)
    logits = classifier.classify(TEXTS[0], use_activation=False).probs[0]
    assert raw[0]["score"] == pytest.approx(float(logits.max()), abs=1e-6)


def test_predict_pairs(client: httpx.AsyncClient, cross_encoder: Engine) -> None:
    (entry,) = answer(client, "/predict", inputs=TEXTS[:2], model="x")
    wanted = float(cross_encoder.classify((TEXTS[0], TEXTS[1])).probs[0, 0])
    assert entry["score"] == pytest.approx(wanted, abs=1e-6)
    assert "3 texts" in refusal(client, "/predict", inputs=TEXTS, model="x")["error"]


def test_rerank_is_sorted(client: httpx.AsyncClient, cross_encoder: Engine) -> None:
    asked = {"query": TEXTS[0], "texts": TEXTS, "model": "x"}
    ranks = answer(client, "/rerank", **asked, return_text=True)
    scores = cross_encoder.score(TEXTS[0], TEXTS)
    assert [rank["index"] for rank in ranks] == np.argsort(-scores, kind="stable").tolist()
    assert [rank["text"] for rank in ranks] == [TEXTS[rank["index"]] for rank in ranks]
    raw = answer(client, "/rerank", **asked, raw_scores=True)
    logits = cross_encoder.score(TEXTS[0], TEXTS, use_activation=False)
    assert [rank["score"] for rank in raw] == pytest.approx(sorted(logits.tolist(), reverse=True))
    assert list(raw[0]) == ["index", "score"]


def test_the_model_that_is_made_for_it_answers(
    client: httpx.AsyncClient, cross_encoder: Engine, classifier: Engine
) -> None:
    """Clients cannot name one; an embedder is served before the others."""
    ranks = answer(client, "/rerank", query=TEXTS[0], texts=TEXTS)
    assert ranks == answer(client, "/rerank", query=TEXTS[0], texts=TEXTS, model="x")
    labels = answer(client, "/predict", inputs=TEXTS[0])
    assert labels == answer(client, "/predict", inputs=TEXTS[0], model="c")


def test_similarity(client: httpx.AsyncClient, embedder: Engine) -> None:
    inputs = {"source_sentence": TEXTS[0], "sentences": TEXTS}
    scores = answer(client, "/similarity", inputs=inputs)
    vectors = embedder.embed(TEXTS, prompt="")
    assert scores == pytest.approx((vectors @ vectors[0]).tolist(), abs=1e-6)


def test_root_is_what_the_model_does(client: httpx.AsyncClient) -> None:
    """huggingface_hub sends every task to the bare address."""
    inputs = {"source_sentence": TEXTS[0], "sentences": TEXTS}
    for path, body in (
        ("/similarity", {"inputs": inputs}),
        ("/predict", {"inputs": TEXTS[0], "model": "c"}),
        ("/rerank", {"query": TEXTS[0], "texts": TEXTS, "model": "x"}),
    ):
        assert answer(client, "/", **body) == answer(client, path, **body)
    assert list(refusal(client, "/", inputs=7)) == ["error", "error_type"]


@pytest.mark.parametrize("path", ["/", "/invocations"])
def test_inputs_are_for_what_the_model_does(client: httpx.AsyncClient, path: str) -> None:
    compared = {"source_sentence": TEXTS[0], "sentences": TEXTS}
    for wanted, body in (
        ("/embed", {"inputs": TEXTS}),
        ("/predict", {"inputs": [[text] for text in TEXTS], "model": "c"}),
        ("/predict", {"inputs": [TEXTS[:2]], "model": "x"}),
        ("/embed_sparse", {"inputs": TEXTS, "model": "s"}),
        ("/similarity", {"inputs": compared}),
    ):
        assert answer(client, path, **body) == answer(client, wanted, **body)
    assert list(refusal(client, path, 404, inputs="a", model="none")) == ["error", "error_type"]


def test_tokenize_and_decode(client: httpx.AsyncClient, embedder: Engine) -> None:
    rows = answer(client, "/tokenize", inputs=TEXTS)
    assert [[token["id"] for token in row] for row in rows] == [
        embedder.tokenize(text) for text in TEXTS
    ]
    first = rows[0]
    assert (first[0]["text"], first[0]["special"], first[0]["start"]) == ("[CLS]", True, None)
    spelled = [TEXTS[0][token["start"] : token["stop"]] for token in first[1:-1]]
    assert "".join(spelled) == TEXTS[0].replace(" ", "")
    ids = [token["id"] for token in first]
    assert answer(client, "/decode", ids=ids) == [TEXTS[0]]
    assert answer(client, "/decode", ids=[ids], skip_special_tokens=False)[0].startswith("[CLS]")


@pytest.mark.parametrize(
    ("name", "kind"), [("e", "embedding"), ("c", "classifier"), ("x", "reranker")]
)
def test_info(client: httpx.AsyncClient, name: str, kind: str, embedder: Engine) -> None:
    body = get(client, "/info", model=name).json()
    assert list(body["model_type"]) == [kind]
    assert body["served_model_name"] == name
    if name == "e":
        assert body["model_type"] == {"embedding": {"pooling": "mean"}}
        assert body["max_input_length"] == embedder.max_length
        assert body["max_batch_tokens"] == 256  # a micro-batch, as its tuning record says
        assert get(client, "/info").json() == body  # the first that is served


def test_errors_have_their_form(client: httpx.AsyncClient, make_client: MakeClient) -> None:
    for path in ("/embed", "/embed_all", "/predict", "/similarity", "/decode"):
        assert list(refusal(client, path)) == ["error", "error_type"]
    alone = make_client(
        x=client._transport.app.state.registry.models[1].engine  # type: ignore[attr-defined]
    )
    assert "does not support embed" in refusal(alone, "/embed", inputs="a")["error"]
    assert post(client, "/rerank", query="a").status_code == 400


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/rerank", {"query": "a", "texts": []}),
        ("/rerank", {"query": 1, "texts": ["a"]}),
        ("/tokenize", {"inputs": []}),
        ("/invocations", {"inputs": 7}),
        ("/invocations", {"query": "a", "texts": []}),
    ],
)
def test_errors_of_shared_paths_have_its_form(
    client: httpx.AsyncClient, path: str, body: dict[str, Any]
) -> None:
    assert list(refusal(client, path, **body)) == ["error", "error_type"]


def test_a_token_classifier_has_a_tokenizer(make_client: MakeClient, tagger: Engine) -> None:
    client = make_client(t=tagger)
    ids = [token["id"] for token in answer(client, "/tokenize", inputs=TEXTS[0])[0]]
    assert ids == tagger.tokenize(TEXTS[0])
    assert answer(client, "/decode", ids=ids) == [TEXTS[0]]
    assert list(get(client, "/info").json()["model_type"]) == ["classifier"]
