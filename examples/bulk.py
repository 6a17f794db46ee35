"""Embed a file of rows into Parquet: python examples/bulk.py [MODEL]"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import pyarrow.parquet

from poolc import bulk

ROWS = [
    {"id": "a", "title": "Cats", "body": "A cat sits on the sill."},
    {"id": "b", "title": "Markets", "body": "Shares fell on Monday."},
    {"id": "c", "title": "Nothing", "body": None},
]


def main(model: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        inputs, output = Path(folder, "rows.jsonl"), Path(folder, "vectors.parquet")
        inputs.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        result = bulk.embed(model, inputs, output, text_column="{title}: {body}", keep=["title"])
        table = pyarrow.parquet.read_table(output)
        for row in table.to_pylist():
            print(f"{row['id']} {row['title']!r}: {len(row['embedding'])} numbers")
        print(f"{result.num_failed} row failed: {Path(str(result.errors)).read_text()}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "sentence-transformers/all-MiniLM-L6-v2")
