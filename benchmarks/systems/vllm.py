"""vLLM's CPU build, offline: ``LLM(..., runner="pooling")`` with its own scheduler and batching."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from benchmarks.systems.protocol import Items, Job, Setting, columns, serve

KV_CACHE_GIB = "1"


class Vllm:
    """An LLM in pooling mode."""

    def __init__(self, job: Job) -> None:
        self.settings: list[Setting] = [{}]
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", KV_CACHE_GIB)
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        from vllm import LLM

        self._pairs = job.task == "score"
        self._options: dict[str, Any] = {"use_tqdm": False}
        self._model = LLM(
            model=job.model, runner="pooling", dtype="float32", max_model_len=job.max_length
        )
        self._truncate = {"truncate_prompt_tokens": -1}

    def run(self, items: Items, setting: Setting) -> Any:
        """Embed or score."""
        options = {**self._options, "tokenization_kwargs": dict(self._truncate)}
        if self._pairs:
            return [o.outputs.score for o in self._model.score(*columns(items), **options)]
        return np.stack([o.outputs.embedding for o in self._model.embed(items, **options)])


if __name__ == "__main__":
    serve(Vllm)
