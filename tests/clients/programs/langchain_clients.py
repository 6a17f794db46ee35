"""LangChain: OpenAI's embeddings, Cohere's embeddings and reranking."""

from checks import Expected
from langchain_cohere import CohereEmbeddings, CohereRerank
from langchain_openai import OpenAIEmbeddings

expected = Expected()
url, key, texts = expected.url, expected.key, expected.texts

made = OpenAIEmbeddings(
    model="m", base_url=f"{url}/v1", api_key=key, check_embedding_ctx_length=False
)
expected.same(made.embed_documents(texts))
expected.same([made.embed_query(text) for text in texts], tolerance=2e-6)

made = CohereEmbeddings(model="m", cohere_api_key=key, base_url=url)
expected.same(made.embed_documents(texts), expected.documents)

reranker = CohereRerank(model="m", cohere_api_key=key, base_url=url, top_n=len(texts))
found = reranker.rerank(texts, texts[0])
expected.ranked([r["index"] for r in found], [r["relevance_score"] for r in found])
