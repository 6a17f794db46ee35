"""Jina-BERT: BERT with ALiBi in place of position embeddings, and a gated feed-forward.

transformers has no such class, and its authors' own cannot be exported: it predates transformers 5
and holds the bias of every pair of 8,192 positions as a constant, 3.2 GB for 12 heads. So the
family has code here, written from the names and shapes of its published tensors and from
text-embeddings-inference, which runs it (backends/candle/src/models/jina.rs and jina_code.rs,
backends/candle/src/alibi.rs; Apache-2.0). The bias is made inside the graph from the length of the
batch.

Both published layouts are read, whose tensors keep their names. This file imports no torch.
"""
