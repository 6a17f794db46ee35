"""LlamaIndex: embeddings like OpenAI's and TEI's; reranking like TEI's and Jina's."""

from checks import Expected
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.embeddings.text_embeddings_inference import (
    TextEmbeddingsInference,
)
from llama_index.postprocessor.jinaai_rerank import JinaRerank
from llama_index.postprocessor.tei_rerank import TextEmbeddingInference

expected = Expected()
url, key, texts = expected.url, expected.key, expected.texts

made = OpenAILikeEmbedding(model_name="m", api_base=f"{url}/v1", api_key=key)
expected.same(made.get_text_embedding_batch(texts))
made = TextEmbeddingsInference(model_name="m", base_url=url, auth_token=key)
expected.same(made.get_text_embedding_batch(texts))

for reranker in (
    TextEmbeddingInference(model_name="m", base_url=url, auth_token=key, top_n=len(texts)),
    JinaRerank(model="m", api_key=key, base_url=f"{url}/v1", top_n=len(texts)),
):
    nodes = [NodeWithScore(node=TextNode(text=text), score=0.0) for text in texts]
    found = reranker.postprocess_nodes(nodes, QueryBundle(texts[0]))
    expected.ranked([texts.index(r.node.text) for r in found], [r.score for r in found])
