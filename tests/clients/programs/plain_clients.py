"""OpenAI (sync, async), Cohere (v1, v2), Ollama, huggingface_hub, LiteLLM."""

import asyncio

import cohere
import huggingface_hub
import litellm
import ollama
import openai
from checks import Expected

expected = Expected()
url, key, texts = expected.url, expected.key, expected.texts


def of_openai():
    client = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)
    for options in ({}, {"encoding_format": "float"}):
        made = client.embeddings.create(model="m", input=texts, **options)
        expected.same([entry.embedding for entry in made.data])
    assert made.usage.total_tokens > 0
    assert client.models.list().data[0].id
    try:
        client.embeddings.create(model="m", input=texts, dimensions=3)
    except openai.BadRequestError as error:
        assert "dimensions" in str(error)
    else:
        raise AssertionError("3 dimensions were not refused")
    try:
        openai.OpenAI(base_url=f"{url}/v1", api_key="other").models.list()
    except openai.AuthenticationError:
        pass
    else:
        raise AssertionError("another key was taken")


async def of_openai_async():
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key) as client:
        made = await asyncio.gather(
            *(client.embeddings.create(model="m", input=text) for text in texts)
        )
    expected.same([one.data[0].embedding for one in made], tolerance=2e-6)


def of_cohere():
    second = cohere.ClientV2(api_key=key, base_url=url)
    made = second.embed(
        model="m", texts=texts, input_type="search_document", embedding_types=["float", "int8"]
    )
    expected.same(made.embeddings.float_, expected.documents)
    expected.same(made.embeddings.int8, expected.int8, tolerance=1)
    first = cohere.Client(api_key=key, base_url=url)
    made = first.embed(model="m", texts=texts, input_type="search_document")
    expected.same(made.embeddings, expected.documents)
    for client in (first, second):
        found = client.rerank(model="m", query=texts[0], documents=texts).results
        expected.ranked([r.index for r in found], [r.relevance_score for r in found])
        assert len(client.rerank(model="m", query="a", documents=texts, top_n=1).results) == 1


def of_ollama():
    client = ollama.Client(host=url, headers={"Authorization": f"Bearer {key}"})
    expected.same(client.embed(model="m", input=texts)["embeddings"])


def of_huggingface_hub():
    client = huggingface_hub.InferenceClient(model=url, token=key)
    expected.same(client.feature_extraction(texts))
    scores = client.sentence_similarity(texts[0], texts)
    expected.ranked(
        sorted(range(len(texts)), key=lambda i: -scores[i]), sorted(scores, reverse=True)
    )


def of_litellm():
    for model, address in (
        ("openai/m", f"{url}/v1"),
        ("jina_ai/m", f"{url}/v1"),
        ("infinity/m", url),
    ):
        made = litellm.embedding(model=model, input=texts, api_base=address, api_key=key)
        expected.same([entry["embedding"] for entry in made.data])
    for model, address in (("cohere/m", url), ("jina_ai/m", f"{url}/v1"), ("infinity/m", url)):
        # As Infinity's, documents would be strings, where Jina's, Cohere's and vLLM's are objects.
        options = {"return_documents": False} if model == "infinity/m" else {}
        found = litellm.rerank(
            model=model, query=texts[0], documents=texts, api_base=address, api_key=key, **options
        ).results
        expected.ranked([r["index"] for r in found], [r["relevance_score"] for r in found])


of_openai()
asyncio.run(of_openai_async())
of_cohere()
of_ollama()
of_huggingface_hub()
of_litellm()
