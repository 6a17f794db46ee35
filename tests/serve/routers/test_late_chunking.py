"""Jina's late chunking: the vectors are means of the states that Sentence Transformers computes."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest

from poolc.runtime.engine import Engine
from poolc.spec import PoolingType
from tests.serve.conftest import MakeClient
from tests.serve.speaking import answer, refusal

CHUNKS = ["the quick brown fox jumps.", "It then sleeps by the river,", " and nobody minds"]
PATH = "/v1/embeddings"


@pytest.fixture
def client(embedder: Engine, make_client: MakeClient) -> httpx.AsyncClient:
    return make_client(tiny=embedder)


@pytest.fixture(scope="module")
def reference(tiny_embedder_source: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(tiny_embedder_source), device="cpu")


def vectors(body: dict[str, Any]) -> npt.NDArray[np.float32]:
    return np.array([entry["embedding"] for entry in body["data"]], np.float32)


def wanted(reference: Any, text: str, starts: list[int]) -> npt.NDArray[np.float32]:
    """The normalised mean of the tokens that end behind each start."""
    states = reference.encode(text, output_value="token_embeddings").numpy()
    places = reference.tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    edges = [next(i for i, (_, stop) in enumerate(places) if stop > start) for start in starts]
    edges = [0, *edges[1:], len(states)]
    means = [states[a:b].mean(axis=0) for a, b in itertools.pairwise(edges)]
    return np.stack([mean / np.linalg.norm(mean) for mean in means])


def test_vectors_are_means_over_the_whole_text(client: httpx.AsyncClient, reference: Any) -> None:
    body = answer(client, PATH, input=CHUNKS, late_chunking=True)
    text = "the quick brown fox jumps. It then sleeps by the river, and nobody minds"
    starts = [0, text.index("It"), text.index(" and")]
    assert np.allclose(vectors(body), wanted(reference, text, starts), atol=1e-5)
    assert body["usage"]["prompt_tokens"] == len(reference.tokenizer(text)["input_ids"])
    assert [entry["index"] for entry in body["data"]] == [0, 1, 2]


def test_a_prompt_goes_before_the_first(client: httpx.AsyncClient, reference: Any) -> None:
    asked = {"input": CHUNKS[:2], "prompt": "passage: ", "late_chunking": True}
    text = "passage: " + " ".join(CHUNKS[:2])
    found = vectors(answer(client, PATH, **asked))
    assert np.allclose(found, wanted(reference, text, [0, text.index("It")]), atol=1e-5)


def test_one_text_has_its_own_vector(client: httpx.AsyncClient, embedder: Engine) -> None:
    body = answer(client, PATH, input=CHUNKS[:1], late_chunking=True, dimensions=8)
    own = embedder.embed(CHUNKS[:1], prompt="", dimensions=8)
    assert np.allclose(vectors(body), own, atol=1e-6)


def test_neighbours_matter(client: httpx.AsyncClient) -> None:
    one = vectors(answer(client, PATH, input=[CHUNKS[1], CHUNKS[0]], late_chunking=True))[0]
    other = vectors(answer(client, PATH, input=[CHUNKS[1], CHUNKS[2]], late_chunking=True))[0]
    assert np.abs(one - other).max() > 1e-3


def test_the_end_is_cut_off(client: httpx.AsyncClient, embedder: Engine, reference: Any) -> None:
    long = ["fox river " * 10, "town bread " * 40]
    assert "tokens" in refusal(client, PATH, input=long, late_chunking=True)["message"]
    body = answer(client, PATH, input=long, late_chunking=True, truncate=True)
    assert body["usage"]["prompt_tokens"] == embedder.max_length
    text = "".join(long)
    assert np.allclose(vectors(body), wanted(reference, text, [0, len(long[0])]), atol=1e-5)
    gone = refusal(client, PATH, input=[*long, "more"], late_chunking=True, truncate=True)
    assert gone["message"].startswith("item 2 ")


@pytest.mark.parametrize(
    ("texts", "side", "marked"),
    [
        (["a cat", "the dog", "the quick brown fox " * 30], "right", [2]),
        (["the quick brown fox " * 30, "the dog", "a cat"], "left", [0]),
        (["fox river " * 10, "town bread " * 40], "right", [1]),
        (["a cat", "the dog"], "right", []),
    ],
)
def test_what_was_cut_is_marked(
    client: httpx.AsyncClient, texts: list[str], side: str, marked: list[int]
) -> None:
    asked = {"late_chunking": True, "truncate_prompt_tokens": -1, "truncation_side": side}
    data = answer(client, PATH, input=texts, prompt="passage: ", **asked)["data"]
    assert [i for i, entry in enumerate(data) if "truncated" in entry] == marked


@pytest.mark.parametrize("chunks", [["a", " "], [[1, 2], [3]]])
def test_what_cannot_be_joined_is_refused(client: httpx.AsyncClient, chunks: list[Any]) -> None:
    refusal(client, PATH, input=chunks, late_chunking=True)


def test_a_model_that_pools_otherwise_refuses(embedder: Engine, make_client: MakeClient) -> None:
    manifest = embedder.artifact.manifest
    other = replace(manifest, spec=replace(manifest.spec, pooling=(PoolingType.CLS,)))
    engine = Engine(replace(embedder.artifact, manifest=other))
    try:
        body = refusal(make_client(cls=engine), PATH, input=CHUNKS, late_chunking=True)
        assert body["param"] == "late_chunking"
        assert "cls" in body["message"]
    finally:
        engine.close()
