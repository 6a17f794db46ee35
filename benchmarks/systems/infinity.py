"""Infinity's engine with its torch backend, in process: no HTTP, so nothing is paid for the wire.

The batch size belongs to an engine: another one means another engine, one at a time.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import numpy as np

from benchmarks.systems.protocol import Items, Job, Setting, batch_sizes, serve


class Infinity:
    """An engine for embeddings or reranking."""

    settings: list[Setting] = batch_sizes()

    def __init__(self, job: Job) -> None:
        self._job = job
        self._pairs = job.task == "score"
        self._loop = asyncio.new_event_loop()
        self._engine: Any = None
        self._batch_size = 0

    def run(self, items: Items, setting: Setting) -> Any:
        """Embed or score."""
        return self._loop.run_until_complete(self._run(items, setting["batch_size"]))

    async def _run(self, items: Items, batch_size: int) -> Any:
        if batch_size != self._batch_size:
            await self._start(batch_size)
        if self._pairs:
            return await self._scores(items)
        rows, _ = await self._engine.embed(sentences=items)
        return np.stack(rows)

    async def _scores(self, items: Items) -> Any:
        """Score all queries at once: one request a query, as its interface has it."""
        groups = [(q, [right for _, right in g]) for q, g in itertools.groupby(items, _left)]
        answers = await asyncio.gather(
            *(self._engine.rerank(query=q, docs=docs, raw_scores=False) for q, docs in groups)
        )
        scores = []
        for ranked, _ in answers:
            by_index = sorted(ranked, key=lambda row: row.index)
            scores += [row.relevance_score for row in by_index]
        return np.asarray(scores, np.float32)

    async def _start(self, batch_size: int) -> None:
        from infinity_emb import AsyncEmbeddingEngine, EngineArgs

        if self._engine is not None:
            await self._engine.astop()
        arguments = EngineArgs(
            model_name_or_path=self._job.model,
            engine="torch",
            device="cpu",
            dtype="float32",
            batch_size=batch_size,
            model_warmup=False,
            lengths_via_tokenize=False,
        )
        self._engine = AsyncEmbeddingEngine.from_args(arguments)
        await self._engine.astart()
        self._batch_size = batch_size


def _left(item: Any) -> str:
    return str(item[0])


if __name__ == "__main__":
    serve(Infinity)
