"""Pairs of texts as prompts: rendered by a score template, tokenised, shortened inside it.

Knows nothing about graphs or results.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from poolc.errors import InvalidOption
from poolc.runtime.budgets import part, readable
from poolc.runtime.items import check_item
from poolc.runtime.request import Item, Params, TokenSequence
from poolc.runtime.templates import ScoreTemplate, parsed
from poolc.runtime.tokenize import How, TextTokenizer
from poolc.spec import Kind, ModelSpec


class PairPrompts:
    """The prompts of one request's pairs. ``special``: whether they get special tokens."""

    def __init__(
        self,
        template: ScoreTemplate,
        instruction: str | None,
        tokenizer: TextTokenizer,
        *,
        special: bool,
    ) -> None:
        self._template = template
        self._instruction = instruction
        self._tokenizer = tokenizer
        self._special = special

    def check_lengths(self, items: Sequence[Item], how: How) -> None:
        """Raise what ``encode`` raises without truncation."""
        pairs, others = _split(items)
        of_pairs, of_others = self._how(pairs, how, len(items))
        prompts = [self._prompt(items[i], _name(place, of_pairs)) for place, i in enumerate(pairs)]
        self._tokenizer.check_lengths(prompts, **of_pairs)
        self._tokenizer.check_lengths([items[i] for i in others], **of_others)

    def encode(self, items: Sequence[Item], *, truncate: bool, how: How) -> list[TokenSequence]:
        """Tokenise items: pairs as prompts, others as they are.

        With ``truncate`` the document of a pair that is too long is shortened, then the query.
        Raises InvalidOption for what goes wrong in the template and where it alone is too long, and
        what tokenising raises.
        """
        pairs, others = _split(items)
        of_pairs, of_others = self._how(pairs, how, len(items))
        fit = self._truncated if truncate else self._whole
        found = dict(zip(pairs, fit([items[i] for i in pairs], of_pairs), strict=True))
        rest = self._tokenizer.encode([items[i] for i in others], truncate=truncate, **of_others)
        found |= zip(others, rest, strict=True)
        return [found[i] for i in range(len(items))]

    def _how(self, pairs: Sequence[int], how: How, count: int) -> tuple[How, How]:
        """Return how pairs and how other items are tokenised."""
        chosen, names = {*pairs}, how.get("indices", range(count))
        of_pairs: How = {
            **how,
            "add_special_tokens": self._special and how.get("add_special_tokens", True),
            "indices": [names[i] for i in pairs],
        }
        others = [names[i] for i in range(count) if i not in chosen]
        return of_pairs, {**how, "indices": others}

    def _whole(self, pairs: Sequence[Any], how: How) -> list[TokenSequence]:
        prompts = [self._prompt(pair, _name(i, how)) for i, pair in enumerate(pairs)]
        return self._tokenizer.encode(prompts, **how)

    def _truncated(self, pairs: Sequence[Any], how: How) -> list[TokenSequence]:
        limit = self._tokenizer.limit(how.get("max_length"))
        short = [self._readable(pair, limit, _name(i, how), how) for i, pair in enumerate(pairs)]
        prompts = [self._render(*pair) for pair in short]
        sequences = self._tokenizer.encode(prompts, truncate=True, **how)
        for i, pair in enumerate(short):
            if sequences[i].truncated:
                prompt = self._fitting(list(pair), limit, how)
                one: How = {**how, "indices": [_name(i, how)]}
                (sequence,) = self._tokenizer.encode([prompt], **one)
                sequences[i] = replace(sequence, truncated=True)
        return sequences

    def _prompt(self, pair: Any, index: int) -> str:
        check_item(pair, index, None)
        return self._render(*pair)

    def _render(self, query: str, document: str) -> str:
        return self._template.render(query, document, self._instruction)

    def _readable(self, pair: Any, limit: int, index: int, how: How) -> tuple[str, str]:
        """Cut texts that are far beyond ``limit``; the pair stays too long, so it counts as cut."""
        check_item(pair, index, None)
        keep_end = self._keep_end(how)
        query, document = (
            readable(text, limit, self._tokenizer, index, keep_end=keep_end) for text in pair
        )
        return query, document

    def _fitting(self, texts: list[str], limit: int, how: How) -> str:
        special, num_tokens = how.get("add_special_tokens", True), 0
        for side in (1, 0):
            whole = texts[side]
            (places,) = self._tokenizer.places([whole])
            keep = len(places)
            while True:
                prompt = self._render(*texts)
                num_tokens = self._tokenizer.length(prompt, special=special)
                if num_tokens <= limit:
                    return prompt
                if not keep:
                    break
                # Tokens may join where the cut falls, so what is left over is looked at again.
                keep = max(0, keep - (num_tokens - limit))
                texts[side] = part(whole, places, keep, keep_end=self._keep_end(how))
        raise InvalidOption(
            f"max_length is {limit}, but the score template alone makes {num_tokens} tokens",
            param="max_length",
        )

    def _keep_end(self, how: How) -> bool:
        side = how.get("truncation_side") or self._tokenizer.limits.truncation_side
        return side == "left"


def _split(items: Sequence[Item]) -> tuple[list[int], list[int]]:
    """Return the positions of pairs, and of the other items."""
    pairs = [i for i, item in enumerate(items) if isinstance(item, tuple)]
    others = [i for i, item in enumerate(items) if not isinstance(item, tuple)]
    return pairs, others


def _name(place: int, how: How) -> int:
    return how["indices"][place]


class PromptMaker:
    """Chooses the template of a request: its own, or the artifact's; None for neither."""

    def __init__(
        self, spec: ModelSpec, source: str | None, tokenizer: TextTokenizer, tokens: dict[str, str]
    ) -> None:
        self._spec = spec
        self._source = source
        self._tokenizer = tokenizer
        self._tokens = tuple(tokens.items())

    def prompts(self, params: Params) -> PairPrompts | None:
        """Return what renders the pairs of a request.

        Raises InvalidOption for a template or instruction that the model or template does not take.
        """
        _check_texts(params)
        if params.template is not None and self._spec.kind is not Kind.CLASSIFIER:
            raise InvalidOption(
                "template makes one prompt of a pair for models that read both texts at once; this "
                f"one is of kind {self._spec.kind}: leave it out",
                param="template",
            )
        source = self._source if params.template is None else params.template
        if source is None:
            if params.instruction is not None:
                raise InvalidOption(
                    "instruction is what a score template is given, and this model has none: leave "
                    "it out, or pass a template",
                    param="instruction",
                )
            return None
        template = parsed(source, self._tokens)
        if params.instruction and not template.takes_instruction:
            raise InvalidOption(
                "instruction has no place in this model's score template: leave it out",
                param="instruction",
            )
        instruction = self._spec.instruction if params.instruction is None else params.instruction
        special = params.template is not None or self._spec.template_special_tokens
        return PairPrompts(template, instruction or None, self._tokenizer, special=special)


def _check_texts(params: Params) -> None:
    for name in ("instruction", "template"):
        value = getattr(params, name)
        if not isinstance(value, str | None):
            raise InvalidOption(f"{name} is {type(value).__name__}; allowed: a string", param=name)
        try:
            (value or "").encode("utf-8")
        except UnicodeEncodeError as error:
            raise InvalidOption(
                f"{name} is not valid Unicode: a lone surrogate at position {error.start}",
                param=name,
            ) from None
