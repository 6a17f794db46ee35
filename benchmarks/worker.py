"""One system in a process of its own: loads a model, then embeds the texts once a line it reads.

``python -m benchmarks.worker SYSTEM MODEL TEXTS OUTPUT`` with SYSTEM ``poolc`` or
``sentence-transformers:BATCH_SIZE``. Prints ``ready``, then the seconds of each round, as lines;
the vectors of the last round are in OUTPUT.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Embed = Callable[[list[str]], Any]


def load(system: str, model: str) -> Embed:
    """Return the function that embeds texts with ``system``."""
    name, _, batch_size = system.partition(":")
    if name == "poolc":
        import poolc

        engine = poolc.load(model)
        return lambda texts: engine.embed(texts, truncate=True)
    if name == "sentence-transformers":
        from sentence_transformers import SentenceTransformer

        transformer = SentenceTransformer(model, device="cpu")
        size = int(batch_size)
        return lambda texts: transformer.encode(texts, batch_size=size, show_progress_bar=False)
    raise SystemExit(f"unknown system {system}")


def main() -> None:
    """Serve rounds until standard input ends."""
    system, model, texts_file, output = sys.argv[1:]
    texts = json.loads(Path(texts_file).read_text(encoding="utf-8"))
    embed = load(system, model)
    embed(texts[:16])
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        vectors = embed(texts)
        seconds = time.perf_counter() - start
        np.save(output, np.asarray(vectors, dtype=np.float32))
        print(seconds, flush=True)


if __name__ == "__main__":
    main()
