"""vLLM's CPU build, offline: ``LLM(..., runner="pooling")`` with its own scheduler and batching.

Variants: ``all`` computes on all cores; ``default`` as it comes, which keeps one of them for the
scheduler. Intel's OpenMP is preloaded, as its manual asks for on x86.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.systems.protocol import Items, Job, Setting, columns, serve

KV_CACHE_GIB = "1"


class Vllm:
    """An LLM in pooling mode."""

    def __init__(self, job: Job) -> None:
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", KV_CACHE_GIB)
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        if job.variant == "all":
            os.environ.setdefault("VLLM_CPU_NUM_OF_RESERVED_CPU", "0")
            os.environ.setdefault("OMP_NUM_THREADS", str(job.cores))
        from vllm import LLM

        self.settings: list[Setting] = [{}]
        self._pairs = job.task == "score"
        self._options: dict[str, Any] = {
            "use_tqdm": False,
            "tokenization_kwargs": {"truncate_prompt_tokens": -1},
        }
        self._model = LLM(
            model=job.model,
            runner="pooling",
            dtype="float32",
            max_model_len=job.max_length,
            # Settings are tried on texts that are measured later: none is to be remembered.
            enable_prefix_caching=False,
        )

    def run(self, items: Items, setting: Setting) -> Any:
        """Embed or score."""
        if self._pairs:
            return [o.outputs.score for o in self._model.score(*columns(items), **self._options)]
        return np.stack([o.outputs.embedding for o in self._model.embed(items, **self._options)])


def preload() -> None:
    """Start again with Intel's OpenMP, which comes with the package, before any other."""
    library = Path(sys.prefix) / "lib" / "libiomp5.so"
    if library.exists() and "LD_PRELOAD" not in os.environ:
        own = {**os.environ, "LD_PRELOAD": str(library)}
        command = [sys.executable, "-m", "benchmarks.systems.vllm", *sys.argv[1:]]
        os.execve(sys.executable, command, own)


if __name__ == "__main__":
    preload()
    serve(Vllm)
