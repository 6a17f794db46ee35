"""Haystack 2: embedders and the ranker of text-embeddings-inference."""

from checks import Expected
from haystack import Document
from haystack.components.embedders import (
    HuggingFaceAPIDocumentEmbedder,
    HuggingFaceAPITextEmbedder,
)
from haystack.components.rankers import HuggingFaceTEIRanker
from haystack.utils import Secret

expected = Expected()
url, texts, token = expected.url, expected.texts, Secret.from_token(expected.key)
options = {
    "api_type": "text_embeddings_inference",
    "api_params": {"url": url},
    "token": token,
    "normalize": True,  # Haystack asks for raw vectors unless told
}

embedder = HuggingFaceAPITextEmbedder(**options)
expected.same([embedder.run(text)["embedding"] for text in texts], tolerance=2e-6)
documents = [Document(content=text) for text in texts]
embedded = HuggingFaceAPIDocumentEmbedder(**options).run(documents)["documents"]
expected.same([document.embedding for document in embedded])

ranker = HuggingFaceTEIRanker(url=url, top_k=len(texts), token=token)
found = ranker.run(texts[0], documents)["documents"]
expected.ranked([texts.index(d.content) for d in found], [d.score for d in found])
