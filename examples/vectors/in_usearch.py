"""Search with USearch: python examples/vectors/in_usearch.py MODEL VECTORS.parquet QUERY [INDEX]

An HNSW index is built unless the file INDEX is there, from which it is read without being loaded.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow.parquet
from usearch.index import Index

import poolc
from poolc import bulk


def main(model: str, vectors: str, query: str, file: str = "vectors.usearch", k: int = 5) -> None:
    engine, made = poolc.load(model), bulk.meta(vectors)
    if made["space_id"] != engine.artifact.space_id:
        raise SystemExit(f"{vectors} was made by another model than {model}")
    size = made["dimensions"]
    table = pyarrow.parquet.read_table(vectors, columns=["id", "text", "embedding"])
    index = Index(ndim=size, metric="cos", dtype="f32")
    if Path(file).exists():
        index.view(file)
    else:
        first = 0
        for batch in table.to_batches():
            rows = batch["embedding"].flatten().to_numpy().reshape(-1, size)
            index.add(range(first, first + len(rows)), rows)  # a key is the row's number
            first += len(rows)
        index.save(file)
    asked = engine.embed_query(query, dimensions=made["params"].get("dimensions"))[0]
    for match in index.search(asked, k):
        row = table.slice(int(match.key), 1).to_pylist()[0]
        print(f"{row['id']}\t{1 - match.distance:.4f}\t{row['text']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
