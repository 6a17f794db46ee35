"""Search Parquet in place with DuckDB: in_duckdb.py MODEL VECTORS.parquet QUERY [--index]

Exact: every vector is compared. With --index they are copied into a table with an HNSW index of
DuckDB's extension vss, which is downloaded once.
"""

from __future__ import annotations

import sys

import duckdb

import poolc
from poolc import bulk

# A cast makes the list that Parquet holds the array of fixed size that DuckDB compares fastest.
EXACT = """
SELECT id, text, array_cosine_similarity(embedding::FLOAT[{size}], $query::FLOAT[{size}]) AS score
FROM read_parquet($vectors) ORDER BY score DESC LIMIT {k}
"""
COPY = """
INSTALL vss; LOAD vss;
CREATE TABLE documents AS SELECT id, text, embedding::FLOAT[{size}] AS embedding
FROM read_parquet('{vectors}');
CREATE INDEX nearest ON documents USING HNSW (embedding) WITH (metric = 'cosine');
"""
INDEXED = """
SELECT id, text, 1 - array_cosine_distance(embedding, $query::FLOAT[{size}]) AS score
FROM documents ORDER BY array_cosine_distance(embedding, $query::FLOAT[{size}]) LIMIT {k}
"""


def main(model: str, vectors: str, query: str, k: int = 5, *, index: bool = False) -> None:
    engine, made = poolc.load(model), bulk.meta(vectors)
    if made["space_id"] != engine.artifact.space_id:
        raise SystemExit(f"{vectors} was made by another model than {model}")
    size = made["dimensions"]
    asked = {"query": engine.embed_query(query, dimensions=made["params"].get("dimensions"))[0]}
    with duckdb.connect() as database:
        if index:
            database.execute(COPY.format(size=size, vectors=vectors.replace("'", "''")))
            found = database.execute(INDEXED.format(size=size, k=k), asked)
        else:
            found = database.execute(EXACT.format(size=size, k=k), {**asked, "vectors": vectors})
        for identity, text, score in found.fetchall():
            print(f"{identity}\t{score:.4f}\t{text}")


if __name__ == "__main__":
    given = [argument for argument in sys.argv[1:] if argument != "--index"]
    main(*given[:3], index="--index" in sys.argv)
