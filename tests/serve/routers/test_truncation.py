"""A server that cuts texts that are too long, where a request does not say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest

from poolc.runtime.engine import Engine
from poolc.serve.settings import Settings
from tests.serve.conftest import MakeClient
from tests.serve.speaking import answer, get, refusal

LONG = "fox river town bread " * 40


@pytest.fixture
def client(make_client: MakeClient, embedder: Engine) -> httpx.AsyncClient:
    return make_client(Settings(truncate=True), m=embedder)


def embedding(client: httpx.AsyncClient, **body: Any) -> Any:
    (entry,) = answer(client, "/v1/embeddings", **body)["data"]
    return np.array(entry["embedding"], np.float32), entry.get("truncated", False)


def test_texts_are_cut_unless_the_request_says_no(
    client: httpx.AsyncClient, embedder: Engine
) -> None:
    wanted = embedder.embed(LONG, prompt="", truncate=True)[0]
    found, truncated = embedding(client, input=LONG)
    assert np.array_equal(found, wanted) and truncated
    assert not embedding(client, input="a river")[1]
    (row,) = answer(client, "/embed", inputs=LONG, normalize=True)
    np.testing.assert_allclose(row, wanted, atol=1e-6)
    (result,) = answer(client, "/v2/rerank", query="a river", documents=[LONG])["results"]
    score = embedder.score("a river", LONG, truncate=True)[0]
    assert result["relevance_score"] == pytest.approx(score, abs=1e-6)

    assert "64" in refusal(client, "/v1/embeddings", input=LONG, truncate=False)["error"]["message"]
    assert "64" in refusal(client, "/embed", inputs=LONG, truncate=False)["error"]
    assert "64" in refusal(client, "/v2/embed", texts=[LONG], truncate="NONE")["message"]


def test_which_end_is_cut_off_may_be_said_alone(
    client: httpx.AsyncClient, embedder: Engine
) -> None:
    found, _ = embedding(client, input=LONG + "the dog", truncation_side="left")
    wanted = embedder.embed(LONG + "the dog", prompt="", truncate=True, truncation_side="left")[0]
    assert np.array_equal(found, wanted)


def test_info_says_so(client: httpx.AsyncClient, make_client: MakeClient, embedder: Engine) -> None:
    assert get(client, "/info").json()["auto_truncate"] is True
    assert get(make_client(m=embedder), "/info").json()["auto_truncate"] is False


def test_windows_of_long_texts_stay(make_client: MakeClient, embedder: Engine) -> None:
    """A model that embeds long texts in windows has none that are too long."""
    manifest = embedder.artifact.manifest
    manifest = replace(manifest, spec=replace(manifest.spec, chunk=True))
    chunking = Engine(replace(embedder.artifact, manifest=manifest))
    found, truncated = embedding(make_client(Settings(truncate=True), m=chunking), input=LONG)
    assert np.array_equal(found, chunking.embed(LONG, prompt="")[0]) and not truncated
    assert not np.array_equal(found, chunking.embed(LONG, prompt="", truncate=True)[0])
