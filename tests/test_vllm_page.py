"""Every snippet of vLLM's page on pooling models, on local models of the same make, against the
libraries that define them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import poolc
from poolc import LLM, PoolingParams
from poolc.cli.main import main
from poolc.errors import InvalidDimensions, RemoteCodeRefused
from poolc.serve.app import create_app
from poolc.serve.settings import Settings
from tests.compiler.author_layouts import jina_native
from tests.compiler.decoders import numpy_rewards

Source = Callable[[str], Path]
HELLO = "Hello, my name is"
JINA = "jinaai/jina-embeddings-v3"
RABBIT = "Follow the white rabbit."
MATRYOSHKA_REFUSED = (
    'Model "{}" does not support matryoshka representation, changing output dimensions will lead '
    "to poor results."
)


def sentence_embedding(folder: Path, text: str, dimensions: int | None = None) -> Any:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    return model.encode(text, truncate_dim=dimensions, normalize_embeddings=True)


# Offline inference.


@pytest.fixture(scope="module")
def llm(minilm: Path) -> LLM:
    """A trained BERT of mean pooling, normalised, as e5-small is."""
    return LLM(model=str(minilm), runner="pooling")


def test_embed(llm: LLM, minilm_source: Path) -> None:
    (output,) = llm.embed(HELLO)
    embeds = output.outputs.embedding
    wanted = sentence_embedding(minilm_source, HELLO)
    assert len(embeds) == len(wanted) == 384
    np.testing.assert_allclose(embeds, wanted, atol=1e-5)


def test_encode(llm: LLM, minilm_source: Path) -> None:
    (output,) = llm.encode(HELLO, pooling_task="embed")
    data = output.outputs.data
    np.testing.assert_allclose(data, sentence_embedding(minilm_source, HELLO), atol=1e-5)


def test_classify(source: Source, artifact: Source) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    name = "tiny_qwen2_classifier"
    llm = LLM(model=str(artifact(name)), runner="pooling")
    (output,) = llm.classify(HELLO)
    probs = output.outputs.probs
    model = AutoModelForSequenceClassification.from_pretrained(source(name)).eval()
    ids = AutoTokenizer.from_pretrained(source(name))(HELLO, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        wanted = model(ids).logits.softmax(-1)[0]
    assert len(probs) == 2
    np.testing.assert_allclose(probs, wanted, atol=1e-5)


def test_score(source: Source, artifact: Source) -> None:
    from sentence_transformers import CrossEncoder

    pair = ("What is the capital of France?", "The capital of Brazil is Brasilia.")
    llm = LLM(model=str(artifact("tiny_reranker")), runner="pooling")
    (output,) = llm.score(*pair)
    reference = CrossEncoder(str(source("tiny_reranker")), device="cpu", local_files_only=True)
    assert output.outputs.score == pytest.approx(float(reference.predict([pair])[0]), abs=1e-5)


def test_score_of_an_embedding_model(llm: LLM, minilm_source: Path) -> None:
    (output,) = llm.score(HELLO, RABBIT)
    left, right = (sentence_embedding(minilm_source, text) for text in (HELLO, RABBIT))
    assert output.outputs.score == pytest.approx(float(left @ right), abs=1e-5)


def test_reward(source: Source) -> None:
    folder = source("tiny_internlm2_reward")
    llm = LLM(model=str(folder), runner="pooling", trust_remote_code=True)
    (output,) = llm.reward(HELLO)
    data = output.outputs.data
    wanted = numpy_rewards(folder, np.array(output.prompt_token_ids))
    assert data.shape == (len(output.prompt_token_ids), 1)
    np.testing.assert_allclose(data, wanted, atol=2e-5)
    # The tasks of the page and of later versions that mean the same.
    for task in ("reward", "token_classify"):
        (same,) = llm.encode(HELLO, pooling_task=task)
        assert np.array_equal(same.outputs.data, data)


def test_reward_without_trust(source: Source) -> None:
    with pytest.raises(RemoteCodeRefused, match=r"internlm2.*trust_remote_code=True"):
        LLM(model=str(source("tiny_internlm2_reward")), runner="pooling")


# Matryoshka embeddings.


@pytest.fixture(scope="module")
def jina_reference(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """transformers' own layout of ``tiny_jina_v3``, its default adapter merged by hand."""
    native = tmp_path_factory.mktemp("jina") / "native"
    return jina_native(source("tiny_jina_v3"), native, "text-matching")


def test_matryoshka_offline(source: Source, jina_reference: Path) -> None:
    llm = LLM(model=str(source("tiny_jina_v3")), runner="pooling", trust_remote_code=True)
    outputs = llm.embed([RABBIT], pooling_params=PoolingParams(dimensions=32))
    wanted = sentence_embedding(jina_reference, RABBIT, 32)
    assert len(outputs[0].outputs.embedding) == 32
    np.testing.assert_allclose(outputs[0].outputs.embedding, wanted, atol=1e-5)


@pytest.mark.parametrize(
    "overrides", [{"matryoshka_dimensions": [32, 256]}, {"is_matryoshka": True}]
)
def test_matryoshka_overrides_offline(
    overrides: dict[str, Any], minilm: Path, minilm_source: Path
) -> None:
    llm = LLM(model=str(minilm), runner="pooling", hf_overrides=overrides)
    outputs = llm.embed([RABBIT], pooling_params=PoolingParams(dimensions=32))
    wanted = sentence_embedding(minilm_source, RABBIT, 32)
    np.testing.assert_allclose(outputs[0].outputs.embedding, wanted, atol=1e-5)


def test_matryoshka_refused_offline(llm: LLM, minilm: Path) -> None:
    with pytest.raises(InvalidDimensions) as caught:
        llm.embed([RABBIT], pooling_params=PoolingParams(dimensions=32))
    assert str(caught.value) == MATRYOSHKA_REFUSED.format(minilm)


# Online serving. The request is the page's curl, the server the one that its command starts.


def served(arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> httpx.Response:
    """Answer the page's curl by what ``poolc serve`` with these arguments would run."""
    replies: list[httpx.Response] = []

    async def ask(app: Any) -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.post(
                "/v1/embeddings",
                headers={"accept": "application/json"},
                json={
                    "input": RABBIT,
                    "model": JINA,
                    "encoding_format": "float",
                    "dimensions": 32,
                },
            )

    def serve(models: Sequence[str], settings: Settings, **options: Any) -> None:
        engines = {model: poolc.load(model, **options) for model in models}
        replies.append(asyncio.run(ask(create_app(engines, settings))))

    monkeypatch.setattr("poolc.serve.server.serve", serve)
    with pytest.raises(SystemExit) as stopped:
        main(["serve", *arguments])
    assert stopped.value.code == 0
    return replies[0]


def test_matryoshka_online(
    source: Source, jina_reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = source("tiny_jina_v3")
    reply = served([str(folder), "--trust-remote-code", "--served-model-name", JINA], monkeypatch)
    body = reply.json()
    assert reply.status_code == 200
    assert list(body) == ["id", "object", "created", "model", "data", "usage"]
    assert (body["object"], body["model"]) == ("list", JINA)
    (row,) = body["data"]
    assert (row["index"], row["object"]) == (0, "embedding")
    wanted = sentence_embedding(jina_reference, RABBIT, 32)
    np.testing.assert_allclose(row["embedding"], wanted, atol=1e-5)
    tokens = len(poolc.load(folder, trust_remote_code=True).tokenize(RABBIT))
    assert body["usage"] == {
        "prompt_tokens": tokens,
        "total_tokens": tokens,
        "completion_tokens": 0,
        "prompt_tokens_details": None,
    }


@pytest.mark.parametrize("overrides", ['{"matryoshka_dimensions":[32]}', '{"is_matryoshka": true}'])
def test_matryoshka_overrides_online(
    overrides: str, minilm: Path, minilm_source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = ("--served-model-name", JINA)
    reply = served([str(minilm), "--hf-overrides", overrides, *name], monkeypatch)
    assert reply.status_code == 200
    (row,) = reply.json()["data"]
    wanted = sentence_embedding(minilm_source, RABBIT, 32)
    np.testing.assert_allclose(row["embedding"], wanted, atol=1e-5)


def test_matryoshka_refused_online(minilm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reply = served([str(minilm), "--served-model-name", "BAAI/bge-m3"], monkeypatch)
    assert reply.status_code == 400
    error = reply.json()
    assert error.get("error", error) == {
        "object": "error",
        "message": MATRYOSHKA_REFUSED.format("BAAI/bge-m3"),
        "type": "BadRequestError",
        "param": None,
        "code": 400,
    }
