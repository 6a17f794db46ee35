"""Search with LanceDB: python examples/vectors/in_lancedb.py MODEL VECTORS.parquet QUERY [DATABASE]

The Parquet file is copied batch by batch into a table of the folder DATABASE, unless it is there.
Exact until an index is made (``table.create_index``, for some 100,000 vectors and more).
"""

from __future__ import annotations

import sys

import lancedb
import pyarrow.parquet

import poolc
from poolc import bulk

TABLE = "documents"


def main(model: str, vectors: str, query: str, folder: str = "lancedb", k: int = 5) -> None:
    engine, made = poolc.load(model), bulk.meta(vectors)
    if made["space_id"] != engine.artifact.space_id:
        raise SystemExit(f"{vectors} was made by another model than {model}")
    database = lancedb.connect(folder)
    try:
        table = database.open_table(TABLE)
    except ValueError:  # there is none yet
        with pyarrow.parquet.ParquetFile(vectors) as file:
            batches = pyarrow.RecordBatchReader.from_batches(file.schema_arrow, file.iter_batches())
            table = database.create_table(TABLE, batches)
    asked = engine.embed_query(query, dimensions=made["params"].get("dimensions"))[0]
    search = table.search(asked, vector_column_name="embedding").distance_type("cosine").limit(k)
    for row in search.to_list():
        print(f"{row['id']}\t{1 - row['_distance']:.4f}\t{row['text']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
