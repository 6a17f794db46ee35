"""LangChain's OpenAI embeddings with nothing set: they send token ids of cl100k."""

from checks import Expected
from langchain_openai import OpenAIEmbeddings

expected = Expected()
url, key, texts = expected.url, expected.key, expected.texts

made = OpenAIEmbeddings(base_url=f"{url}/v1", api_key=key)
expected.same(made.embed_documents(texts))
expected.same([made.embed_query(text) for text in texts], tolerance=2e-6)
