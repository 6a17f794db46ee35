"""The public methods of an engine: lists in and arrays out, their streaming and their async twins.

Everything here is written over the seam (``prepare``, ``submit``, ``finish``); nothing here knows
how a model runs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, ParamSpec, TypedDict, TypeVar, Unpack, cast

import numpy as np
import numpy.typing as npt

from poolc.errors import InvalidText
from poolc.runtime.heads import Result
from poolc.runtime.outputs import Classification, Float32, OutputDtype, Ragged
from poolc.runtime.prompts import DOCUMENT_PROMPT, QUERY_PROMPT
from poolc.runtime.request import Item, Params, Prepared, Row
from poolc.runtime.work import Work
from poolc.spec import ModelSpec, Task

Texts = str | Sequence[Item]
Array = npt.NDArray[Any]
P = ParamSpec("P")
T = TypeVar("T")

# Texts tokenised and sorted together. Large enough that sorting leaves almost no padding, small
# enough that the next window is tokenised while this one runs and that streams stay flat in memory.
WINDOW = 1024
_WINDOWS_IN_FLIGHT = 2


class EmbedOptions(TypedDict, total=False):
    """Keywords of ``embed`` and its twins."""

    dimensions: int | None
    normalize: bool | None
    prompt_name: str | None
    prompt: str | None
    truncate: bool
    output_dtype: OutputDtype


class ClassifyOptions(TypedDict, total=False):
    """Keywords of ``classify``, ``reward`` and their twins."""

    use_activation: bool | None
    truncate: bool


class ScoreOptions(TypedDict, total=False):
    """Keywords of ``score`` and its twins."""

    label: str | int | None
    use_activation: bool | None
    truncate: bool
    dimensions: int | None


class EncodeOptions(TypedDict, total=False):
    """Keywords of ``encode`` and its twins."""

    truncate: bool


class Calls(ABC):
    """embed, classify, score, reward and encode over the seam that a subclass provides."""

    spec: ModelSpec

    @abstractmethod
    def require(self, task: Task) -> None:
        """Raise UnsupportedTask where the model does not do ``task``."""

    @abstractmethod
    def check(self, task: Task, items: Sequence[Item], params: Params) -> None:
        """Raise what ``prepare`` raises, with as little work as that takes."""

    @abstractmethod
    def prepare(
        self, task: Task, items: Sequence[Item], params: Params, *, first_index: int = 0
    ) -> Prepared:
        """Validate and tokenise."""

    @abstractmethod
    def submit(self, prepared: Prepared) -> Work:
        """Start the work."""

    @abstractmethod
    def finish(self, prepared: Prepared, rows: Sequence[Row]) -> Result:
        """Rows -> result."""

    # Lists in, arrays out.

    def embed(
        self,
        texts: Texts,
        *,
        dimensions: int | None = None,
        normalize: bool | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        truncate: bool = False,
        output_dtype: OutputDtype = "float32",
    ) -> Array:
        """Return one vector a text: [n, dim], float32 unless ``output_dtype`` says otherwise.

        A lone string is a list of one; items may be token ids. ``dimensions`` is a Matryoshka size.
        With neither ``prompt_name`` nor ``prompt`` the model's default prompt is put before each
        text, as in Sentence Transformers; ``prompt=""`` for none. ``truncate`` cuts long texts
        instead of raising.

        Raises UnsupportedTask, InvalidText, TextTooLong (both with ``.index``), InvalidDimensions,
        InvalidOption: all of them before the model has run on any text.
        """
        params = Params(dimensions, normalize, prompt_name, prompt, truncate, None, output_dtype)
        return np.concatenate(self._run(Task.EMBED, _as_list(texts), params))

    def embed_query(self, texts: Texts, **options: Unpack[EmbedOptions]) -> Array:
        """Like ``embed``, with the model's ``query`` prompt unless ``options`` name another.

        A model that has none gets no prompt, not its default one: as in Sentence Transformers.
        """
        return self.embed(texts, **_with_prompt(options, QUERY_PROMPT))

    def embed_document(self, texts: Texts, **options: Unpack[EmbedOptions]) -> Array:
        """Like ``embed``, with the model's ``document`` prompt unless ``options`` name another.

        A model that has none gets no prompt, not its default one nor one called ``passage``: as in
        Sentence Transformers. Such a prompt is asked for by name.
        """
        return self.embed(texts, **_with_prompt(options, DOCUMENT_PROMPT))

    def classify(
        self, texts: Texts, *, use_activation: bool | None = None, truncate: bool = False
    ) -> Classification:
        """Return the best label and the probabilities of each text or pair of texts.

        ``use_activation=False`` gives raw logits. Raises as ``embed`` does.
        """
        params = Params(use_activation=use_activation, truncate=truncate)
        parts = cast("list[Classification]", self._run(Task.CLASSIFY, _as_items(texts), params))
        labels = [label for part in parts for label in part.labels]
        return Classification(labels, np.concatenate([p.probs for p in parts]), parts[0].names)

    def score(
        self,
        left: Texts,
        right: Texts,
        *,
        label: str | int | None = None,
        use_activation: bool | None = None,
        truncate: bool = False,
        dimensions: int | None = None,
    ) -> Float32:
        """Return one score a pair, float32 [n]: 1-1, 1-N or N-N texts.

        A cross-encoder reads both texts; an embedding model compares their vectors. ``label`` says
        which one a score is where the model has several. Raises as ``embed`` does.
        """
        params = Params(
            dimensions=dimensions, truncate=truncate, use_activation=use_activation, label=label
        )
        return np.concatenate(self._run(Task.SCORE, as_pairs(left, right), params))

    def reward(
        self, texts: Texts, *, use_activation: bool | None = None, truncate: bool = False
    ) -> Float32 | Ragged:
        """Return rewards: float32 [n] of a sequence reward model (raw unless ``use_activation``),
        else one row a token as Ragged. Raises as ``embed`` does."""
        params = Params(use_activation=use_activation, truncate=truncate)
        parts = self._run(Task.REWARD, _as_items(texts), params)
        if isinstance(parts[0], Ragged):
            return _joined(parts)
        return cast("Float32", np.concatenate(parts))

    def encode(self, texts: Texts, *, truncate: bool = False) -> Ragged:
        """Return the last hidden states, one row a token: Ragged of float32 [len, hidden].

        Raises as ``embed`` does.
        """
        return _joined(self._run(Task.ENCODE, _as_items(texts), Params(truncate=truncate)))

    # Streams: any iterable in, results out one by one, in order, in bounded memory. An error comes
    # when its text is read, after the results of the windows before.

    def embed_iter(self, texts: Iterable[Item], **options: Unpack[EmbedOptions]) -> Iterator[Array]:
        """Yield one vector [dim] a text, in order, reading ahead at most three windows."""
        for part in self._stream(Task.EMBED, texts, Params(**options)):
            yield from part

    def embed_query_iter(
        self, texts: Iterable[Item], **options: Unpack[EmbedOptions]
    ) -> Iterator[Array]:
        """``embed_iter`` with the prompt of ``embed_query``."""
        return self.embed_iter(texts, **_with_prompt(options, QUERY_PROMPT))

    def embed_document_iter(
        self, texts: Iterable[Item], **options: Unpack[EmbedOptions]
    ) -> Iterator[Array]:
        """``embed_iter`` with the prompt of ``embed_document``."""
        return self.embed_iter(texts, **_with_prompt(options, DOCUMENT_PROMPT))

    def classify_iter(
        self, texts: Iterable[Item], **options: Unpack[ClassifyOptions]
    ) -> Iterator[tuple[str | None, Float32]]:
        """Yield (label, probabilities [labels]) a text, in order."""
        for part in self._stream(Task.CLASSIFY, texts, Params(**options)):
            yield from zip(part.labels, part.probs, strict=True)

    def score_iter(
        self, pairs: Iterable[tuple[str, str]], **options: Unpack[ScoreOptions]
    ) -> Iterator[float]:
        """Yield one score a (left, right) pair, in order."""
        for part in self._stream(Task.SCORE, pairs, Params(**options)):
            yield from (float(value) for value in part)

    def reward_iter(
        self, texts: Iterable[Item], **options: Unpack[ClassifyOptions]
    ) -> Iterator[float | Float32]:
        """Yield one reward (or one array of token rewards) a text, in order."""
        for part in self._stream(Task.REWARD, texts, Params(**options)):
            yield from (part if isinstance(part, Ragged) else (float(value) for value in part))

    def encode_iter(
        self, texts: Iterable[Item], **options: Unpack[EncodeOptions]
    ) -> Iterator[Float32]:
        """Yield the hidden states [len, hidden] of each text, in order."""
        for part in self._stream(Task.ENCODE, texts, Params(**options)):
            yield from part

    # Async twins: the same work on a worker thread, the event loop stays free.

    async def aembed(self, texts: Texts, **options: Unpack[EmbedOptions]) -> Array:
        """Async twin of ``embed``."""
        return await _on_thread(self.embed, texts, **options)

    async def aembed_query(self, texts: Texts, **options: Unpack[EmbedOptions]) -> Array:
        """Async twin of ``embed_query``."""
        return await _on_thread(self.embed_query, texts, **options)

    async def aembed_document(self, texts: Texts, **options: Unpack[EmbedOptions]) -> Array:
        """Async twin of ``embed_document``."""
        return await _on_thread(self.embed_document, texts, **options)

    async def aclassify(self, texts: Texts, **options: Unpack[ClassifyOptions]) -> Classification:
        """Async twin of ``classify``."""
        return await _on_thread(self.classify, texts, **options)

    async def ascore(self, left: Texts, right: Texts, **options: Unpack[ScoreOptions]) -> Float32:
        """Async twin of ``score``."""
        return await _on_thread(self.score, left, right, **options)

    async def areward(self, texts: Texts, **options: Unpack[ClassifyOptions]) -> Float32 | Ragged:
        """Async twin of ``reward``."""
        return await _on_thread(self.reward, texts, **options)

    async def aencode(self, texts: Texts, **options: Unpack[EncodeOptions]) -> Ragged:
        """Async twin of ``encode``."""
        return await _on_thread(self.encode, texts, **options)

    def _run(self, task: Task, items: list[Any], params: Params) -> list[Any]:
        self.require(task)
        if not items or len(items) > WINDOW:
            # A mistake in the last window must not cost the work of the first.
            self.check(task, items, params)
        return list(self._stream(task, items, params))

    def _stream(self, task: Task, items: Iterable[Item], params: Params) -> Iterator[Any]:
        """Yield one result a window; window k + 1 is tokenised while window k runs."""
        self.require(task)
        pending: deque[tuple[Prepared, Work]] = deque()
        done = 0
        try:
            for window in _windows(_as_iterable(items)):
                prepared = self.prepare(task, window, params, first_index=done)
                done += len(window)
                pending.append((prepared, self.submit(prepared)))
                if len(pending) > _WINDOWS_IN_FLIGHT:
                    yield self._finished(*pending.popleft())
            while pending:
                yield self._finished(*pending.popleft())
        finally:
            for _, work in pending:  # after an error or an early stop nothing runs on unseen
                work.cancel()

    def _finished(self, prepared: Prepared, work: Work) -> Any:
        return self.finish(prepared, work.wait())


def as_pairs(left: Texts, right: Texts) -> list[tuple[Any, Any]]:
    """Pair texts 1-1, 1-N or N-N.

    Raises InvalidText for other shapes or an empty side.
    """
    lefts, rights = _as_list(left), _as_list(right)
    if not lefts or not rights:
        raise InvalidText("score needs at least one text on each side")
    if len(lefts) == 1:
        lefts = lefts * len(rights)
    if len(lefts) != len(rights):
        raise InvalidText(
            f"score got {len(lefts)} and {len(rights)} texts; allowed: 1 and 1, 1 and N, N and N"
        )
    return list(zip(lefts, rights, strict=True))


def _as_items(texts: Any) -> list[Any]:
    """Like ``_as_list``, for tasks that read pairs: there a lone tuple is one pair."""
    return [texts] if isinstance(texts, tuple) else _as_list(texts)


def _as_list(texts: Any) -> list[Any]:
    return list(_as_iterable(texts))


def _as_iterable(texts: Any) -> Iterable[Any]:
    """Return ``texts``, a lone string as a list. Raises InvalidText for what holds no texts."""
    if isinstance(texts, str):
        return [texts]
    unsized = isinstance(texts, np.ndarray) and not texts.ndim
    if isinstance(texts, Iterable) and not (unsized or isinstance(texts, (bytes, dict))):
        return texts
    raise InvalidText(f"got {type(texts).__name__}; allowed: a string or a list of strings")


def _with_prompt(options: EmbedOptions, name: str) -> EmbedOptions:
    if options.get("prompt") is not None or options.get("prompt_name") is not None:
        return options
    return {**options, "prompt_name": name}


async def _on_thread(call: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
    import asyncio  # 15 ms that a cold start without an event loop does not pay

    return await asyncio.to_thread(call, *args, **options)


def _windows(items: Iterable[Item]) -> Iterator[list[Item]]:
    iterator = iter(items)
    while window := list(islice(iterator, WINDOW)):
        yield window


def _joined(parts: list[Ragged]) -> Ragged:
    return (
        parts[0] if len(parts) == 1 else Ragged.from_rows([row for part in parts for row in part])
    )
