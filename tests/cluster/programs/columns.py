"""Embeds, classifies and scores rows of Ray Data; prints what every pipeline gave, as JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import ray

from poolc.ray import Classifier, Embedder, Scorer


def main() -> None:
    models = json.loads(sys.argv[1])
    ray.init(num_cpus=4, include_dashboard=False, object_store_memory=1 << 28, log_to_driver=False)
    rows = ray.data.from_items(models["rows"]).repartition(4)
    found = {
        "embedding": answers(rows, Embedder, models["embedder"], {"dimensions": 8}),
        "arrow": answers(rows, Embedder, models["embedder"], {"output_column": "v"}, "pyarrow"),
        "sparse": answers(rows, Embedder, models["splade"], {}),
        "label": answers(rows, Classifier, models["classifier"], {}),
        "score": answers(
            rows, Scorer, models["cross_encoder"], {"left_column": "text", "right_column": "other"}
        ),
    }
    print("\nsaid", json.dumps(found, default=plain), flush=True)


def answers(
    rows: Any, kind: Any, model: str, options: dict[str, Any], batches: str = "numpy"
) -> list[Any]:
    mapped = rows.map_batches(
        kind,
        fn_constructor_args=[model],
        fn_constructor_kwargs=options,
        concurrency=(1, 2),
        batch_size=3,
        batch_format=batches,
        num_cpus=1,
    )
    return sorted(mapped.take_all(), key=lambda row: row["n"])


def plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value.item()


main()
