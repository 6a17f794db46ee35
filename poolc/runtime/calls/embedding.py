"""embed, its query and document forms, and their streaming and async twins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from poolc.runtime.calls.arguments import Texts, as_list
from poolc.runtime.calls.base import Seam, on_thread
from poolc.runtime.calls.options import EmbedOptions, EmbedParams, params_of
from poolc.runtime.prompts import DOCUMENT_PROMPT, QUERY_PROMPT
from poolc.runtime.request import Item
from poolc.spec import Task

Array = npt.NDArray[Any]


class EmbeddingCalls(Seam):
    """Vectors of whole texts."""

    def embed(
        self,
        texts: Texts,
        *,
        truncated: list[bool] | None = None,
        **options: Unpack[EmbedParams],
    ) -> Array:
        """Return one vector a text: [n, dim], float32 unless ``output_dtype`` says otherwise.

        A lone string is a list of one; items may be token ids. ``dimensions`` is a Matryoshka size;
        ``normalize=False`` gives vectors as the model made them. With neither ``prompt_name`` nor
        ``prompt`` the model's default prompt is put before each text, as in Sentence Transformers;
        ``prompt=""`` for none. ``side`` is whose texts they are, query or document: its prompt, and
        its route through models that have one a side; ``embed_query`` and ``embed_document`` say
        it.

        A text of more tokens than the model takes (or ``max_length``, if that is less) raises.
        With ``truncate`` its end is cut off, or its beginning with ``truncation_side="left"``;
        the list ``truncated`` then receives True or False a text. With ``chunk`` it is embedded
        in windows, each with the prompt, whose vectors are averaged by their tokens.

        Raises UnsupportedTask, InvalidText, TextTooLong (both with ``.index``), InvalidDimensions,
        InvalidOption: all of them before the model has run on any text.
        """
        params = params_of("embed", options)
        return np.concatenate(self.run(Task.EMBED, as_list(texts), params, truncated))

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

    def embed_iter(
        self,
        texts: Iterable[Item],
        *,
        truncated: list[bool] | None = None,
        **options: Unpack[EmbedParams],
    ) -> Iterator[Array]:
        """Yield one vector [dim] a text, in order, reading ahead at most three windows.

        ``truncated`` has a text's entry when its vector is yielded, and may then have more.
        """
        for part in self.stream(Task.EMBED, texts, params_of("embed", options), truncated):
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

    async def aembed(self, texts: Texts, **options: Unpack[EmbedOptions]) -> Array:
        """Async twin of ``embed``."""
        return await on_thread(self.embed, texts, **options)

    async def aembed_query(self, texts: Texts, **options: Unpack[EmbedOptions]) -> Array:
        """Async twin of ``embed_query``."""
        return await on_thread(self.embed_query, texts, **options)

    async def aembed_document(self, texts: Texts, **options: Unpack[EmbedOptions]) -> Array:
        """Async twin of ``embed_document``."""
        return await on_thread(self.embed_document, texts, **options)


def _with_prompt(options: EmbedOptions, name: str) -> EmbedOptions:
    """Say which side the texts are of, and name its prompt where ``options`` name none."""
    options = {"side": name, **options}
    if options.get("prompt") is not None or options.get("prompt_name") is not None:
        return options
    return {**options, "prompt_name": name}
