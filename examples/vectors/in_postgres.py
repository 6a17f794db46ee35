"""Search with PostgreSQL and pgvector: in_postgres.py MODEL VECTORS.parquet QUERY CONNECTION

CONNECTION is that of libpq, e.g. postgresql://user@host/database. The vectors are copied into the
table ``documents``, unless it is there; with --index an HNSW index is made, else search is exact.
"""

from __future__ import annotations

import sys

import psycopg
import pyarrow.parquet
from pgvector.psycopg import register_vector

import poolc
from poolc import bulk

COPY = "COPY documents (id, text, embedding) FROM STDIN WITH (FORMAT BINARY)"
NEAREST = """
SELECT id, text, 1 - (embedding <=> %s) FROM documents ORDER BY embedding <=> %s LIMIT %s
"""


def main(
    model: str, vectors: str, query: str, connection: str, k: int = 5, *, index: bool = False
) -> None:
    engine, made = poolc.load(model), bulk.meta(vectors)
    if made["space_id"] != engine.artifact.space_id:
        raise SystemExit(f"{vectors} was made by another model than {model}")
    with psycopg.connect(connection) as database:
        database.execute("CREATE EXTENSION IF NOT EXISTS vector")
        register_vector(database)
        if database.execute("SELECT to_regclass('documents')").fetchone() == (None,):
            fill(database, vectors, made["dimensions"])
        if index:
            database.execute(
                "CREATE INDEX IF NOT EXISTS nearest ON documents "
                "USING hnsw (embedding vector_cosine_ops)"
            )
        asked = engine.embed_query(query, dimensions=made["params"].get("dimensions"))[0]
        for identity, text, score in database.execute(NEAREST, (asked, asked, k)):
            print(f"{identity}\t{score:.4f}\t{text}")


def fill(database: psycopg.Connection, vectors: str, size: int) -> None:
    database.execute(
        f"CREATE TABLE documents (id text PRIMARY KEY, text text, embedding vector({size}))"
    )
    with (
        pyarrow.parquet.ParquetFile(vectors) as file,
        database.cursor().copy(COPY) as copy,
    ):
        copy.set_types(["text", "text", "vector"])
        for batch in file.iter_batches(columns=["id", "text", "embedding"]):
            rows = batch["embedding"].flatten().to_numpy().reshape(-1, size)
            texts = zip(batch["id"].to_pylist(), batch["text"].to_pylist(), strict=True)
            for (identity, text), vector in zip(texts, rows, strict=True):
                copy.write_row([identity, text, vector])


if __name__ == "__main__":
    given = [argument for argument in sys.argv[1:] if argument != "--index"]
    main(*given[:4], index="--index" in sys.argv)
