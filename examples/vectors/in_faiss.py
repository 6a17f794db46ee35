"""Search in memory with FAISS: python examples/vectors/in_faiss.py MODEL VECTORS.parquet QUERY

``IndexFlatIP`` is exact; for millions of vectors ``index_factory`` has the others
(``faiss.index_factory(size, "IVF4096,PQ64", faiss.METRIC_INNER_PRODUCT)``, trained on a sample).
"""

from __future__ import annotations

import sys

import faiss
import numpy as np
import pyarrow.parquet

import poolc
from poolc import bulk


def main(model: str, vectors: str, query: str, k: int = 5) -> None:
    engine, made = poolc.load(model), bulk.meta(vectors)
    if made["space_id"] != engine.artifact.space_id:
        raise SystemExit(f"{vectors} was made by another model than {model}")
    size = made["dimensions"]
    index = faiss.IndexFlatIP(size)
    ids, texts = [], []
    with pyarrow.parquet.ParquetFile(vectors) as file:
        for batch in file.iter_batches(columns=["id", "text", "embedding"]):
            rows = batch["embedding"].flatten().to_numpy().reshape(-1, size)
            rows = np.array(rows, np.float32)  # of its own: it is normalised in place
            faiss.normalize_L2(rows)  # an inner product of unit vectors is the cosine
            index.add(rows)
            ids += batch["id"].to_pylist()
            texts += batch["text"].to_pylist()
    asked = engine.embed_query(query, dimensions=made["params"].get("dimensions"))
    faiss.normalize_L2(asked)
    scores, places = index.search(asked, k)
    for score, place in zip(scores[0], places[0], strict=True):
        print(f"{ids[place]}\t{score:.4f}\t{texts[place]}")


if __name__ == "__main__":
    main(*sys.argv[1:])
