"""classify, score and reward, and their streaming and async twins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Unpack, cast

import numpy as np

from poolc.runtime.calls.arguments import Texts, as_items, as_pairs
from poolc.runtime.calls.base import Seam, joined, on_thread
from poolc.runtime.calls.options import (
    ClassifyOptions,
    ClassifyParams,
    RewardOptions,
    RewardParams,
    ScoreOptions,
    ScoreParams,
    params_of,
)
from poolc.runtime.outputs import Classification, Float32, Ragged
from poolc.runtime.request import Item
from poolc.spec import Task


class ClassCalls(Seam):
    """Labels, scores and rewards."""

    def classify(
        self,
        texts: Texts,
        *,
        truncated: list[bool] | None = None,
        **options: Unpack[ClassifyParams],
    ) -> Classification:
        """Return the best label and the probabilities of each text or pair of texts.

        ``use_activation=False`` gives raw logits. Pairs are read as ``score`` reads them, with the
        same keywords. Truncates and raises as ``embed`` does.
        """
        params, items = params_of("classify", options), as_items(texts)
        parts = cast("list[Classification]", self.run(Task.CLASSIFY, items, params, truncated))
        labels = [label for part in parts for label in part.labels]
        return Classification(labels, np.concatenate([p.probs for p in parts]), parts[0].names)

    def score(
        self,
        left: Texts,
        right: Texts,
        *,
        truncated: list[bool] | None = None,
        **options: Unpack[ScoreParams],
    ) -> Float32:
        """Return one score a pair, float32 [n]: 1-1, 1-N or N-N texts.

        A cross-encoder reads both texts; an embedding model compares their vectors, of a model with
        a route a side that of a query and that of a document, each with its prompt. ``label`` says
        which one a score is where the model has several. Long texts are treated and errors raised
        as by ``embed``; a cross-encoder has no windows, and a pair is ``truncated`` in either text.

        ``instruction`` is given to the score template, and ``template`` is Jinja source in place of
        the model's own. ``max_query_length`` and ``max_document_length`` are tokens of each text;
        more are cut off.
        """
        params = params_of("score", options)
        return np.concatenate(self.run(Task.SCORE, as_pairs(left, right), params, truncated))

    def reward(
        self,
        texts: Texts,
        *,
        truncated: list[bool] | None = None,
        **options: Unpack[RewardParams],
    ) -> Float32 | Ragged:
        """Return rewards: float32 [n] of a sequence reward model (raw unless ``use_activation``
        or the model's pooler config asks for more), else one row a token, or a step, as Ragged.

        ``step_tag_id``: only at tokens with this id. ``returned_token_ids``: which columns of the
        logits are the reward, of a language model by token id. Pairs are read as ``score``
        reads them. Truncates and raises as ``embed`` does.
        """
        params = params_of("reward", options)
        parts = self.run(Task.REWARD, as_items(texts), params, truncated)
        if isinstance(parts[0], Ragged):
            return joined(parts)
        return cast("Float32", np.concatenate(parts))

    def classify_iter(
        self,
        texts: Iterable[Item],
        *,
        truncated: list[bool] | None = None,
        **options: Unpack[ClassifyParams],
    ) -> Iterator[tuple[str | None, Float32]]:
        """Yield (label, probabilities [labels]) a text, in order."""
        params = params_of("classify", options)
        for part in self.stream(Task.CLASSIFY, texts, params, truncated):
            yield from zip(part.labels, part.probs, strict=True)

    def score_iter(
        self,
        pairs: Iterable[tuple[str, str]],
        *,
        truncated: list[bool] | None = None,
        **options: Unpack[ScoreParams],
    ) -> Iterator[float]:
        """Yield one score a (left, right) pair, in order."""
        params = params_of("score", options)
        for part in self.stream(Task.SCORE, pairs, params, truncated):
            yield from (float(value) for value in part)

    def reward_iter(
        self,
        texts: Iterable[Item],
        *,
        truncated: list[bool] | None = None,
        **options: Unpack[RewardParams],
    ) -> Iterator[float | Float32]:
        """Yield one reward (or one array of token rewards) a text, in order."""
        params = params_of("reward", options)
        for part in self.stream(Task.REWARD, texts, params, truncated):
            yield from (part if isinstance(part, Ragged) else (float(value) for value in part))

    async def aclassify(self, texts: Texts, **options: Unpack[ClassifyOptions]) -> Classification:
        """Async twin of ``classify``."""
        return await on_thread(self.classify, texts, **options)

    async def ascore(self, left: Texts, right: Texts, **options: Unpack[ScoreOptions]) -> Float32:
        """Async twin of ``score``."""
        return await on_thread(self.score, left, right, **options)

    async def areward(self, texts: Texts, **options: Unpack[RewardOptions]) -> Float32 | Ragged:
        """Async twin of ``reward``."""
        return await on_thread(self.reward, texts, **options)
