"""Conversations as one text, by the model's own chat template: what vLLM's ``messages`` become.

Knows nothing about requests, tokens or files. Messages are dicts with ``role`` and ``content``, as
transformers' ``apply_chat_template`` takes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from poolc.errors import InvalidOption
from poolc.runtime.jinja import environment, rendered

if TYPE_CHECKING:
    from jinja2 import Template

Message = Mapping[str, Any]
# What templates may ask for and nobody gives: no tools are called, no documents looked up.
_NOTHING = {"tools": None, "documents": None}
# ``self`` and ``loop`` are Jinja's own.
_RESERVED = frozenset(
    {"messages", "add_generation_prompt", "continue_final_message", "self", "loop"}
)


class ChatTemplate:
    """A chat template. ``special_tokens`` are the tokenizer's, by their names."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        self._source = source
        self._special_tokens = dict(special_tokens)

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """Return the text of a conversation.

        ``continue_final_message`` ends it with the last message's own end. ``variables`` are what
        a request adds (``chat_template_kwargs``). Raises InvalidOption for both ways to end at
        once, variables that are given otherwise, and for what goes wrong inside the template.
        """
        variables = variables or {}
        reserved = sorted(_RESERVED & variables.keys())
        if reserved:
            raise InvalidOption(
                f"chat_template_kwargs has {', '.join(reserved)}: fields of their own",
                param="chat_template_kwargs",
            )
        if add_generation_prompt and continue_final_message:
            raise InvalidOption(
                "add_generation_prompt and continue_final_message contradict each other: give one",
                param="continue_final_message",
            )
        size = sum(len(str(message.get("content", ""))) for message in messages)
        given = {
            **self._special_tokens,
            **_NOTHING,
            **variables,
            "messages": list(messages),
            "add_generation_prompt": add_generation_prompt,
        }
        text = rendered(self._template, given, size, _fail)
        return _until_last(text, messages) if continue_final_message else text

    @cached_property
    def _template(self) -> Template:
        from jinja2 import TemplateSyntaxError

        try:
            return environment(strict=False).from_string(self._source)
        except TemplateSyntaxError as error:
            _fail(f"is not a Jinja template: line {error.lineno}: {error.message}")


def _until_last(text: str, messages: Sequence[Message]) -> str:
    """Cut what a template puts behind the last message, as transformers does."""
    last = str(messages[-1].get("content", "")).strip()
    place = text.rfind(last)
    if place < 0:
        _fail("changes the last message, so that it cannot be continued")
    return text[: place + len(last)]


def _fail(problem: str) -> NoReturn:
    raise InvalidOption(f"the model's chat template {problem}", param="messages") from None
