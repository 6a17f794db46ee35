"""Score templates: Jinja source that makes one prompt of a query and a document.

Owns which variables a template may use, the sandbox it runs in and what its errors say. Knows
nothing about tokens, files or requests. Rendering follows transformers' chat templates: the same
whitespace rules, ``raise_exception`` and ``tojson``; but an undefined variable is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Any, NoReturn

from poolc.errors import InvalidOption, nearest
from poolc.runtime.jinja import environment, rendered, to_json

SPECIAL_TOKENS = (
    *("bos_token", "eos_token", "unk_token", "sep_token"),
    *("pad_token", "cls_token", "mask_token"),
)
_VARIABLES = (
    *("messages", "query", "document", "add_generation_prompt"),
    *("instruction", "instruct"),  # two names of one thing, as in vLLM's templates
)
_QUERY, _DOCUMENT = "a query", "a document"


class ScoreTemplate:
    """A checked template. ``special_tokens`` are the tokenizer's, by their names.

    ``param`` is what errors call the option that the source came from. Raises InvalidOption for a
    syntax error, and for a variable that templates do not have.
    """

    def __init__(
        self, source: str, special_tokens: Mapping[str, str], param: str = "template"
    ) -> None:
        from jinja2 import TemplateSyntaxError, meta

        self.source = source
        self.param = param
        sandbox = environment(strict=True)
        known = [*_VARIABLES, *special_tokens]
        try:
            unknown = sorted(meta.find_undeclared_variables(sandbox.parse(source)) - {*known})
            if unknown:
                raise InvalidOption(
                    f"{param} uses {', '.join(map(repr, unknown))}, which it is not given; "
                    f"{nearest(unknown[0], known)}",
                    param=param,
                )
            self._template = sandbox.from_string(source)
        except TemplateSyntaxError as error:
            raise InvalidOption(
                f"{param} is not a Jinja template: line {error.lineno}: {error.message}",
                param=param,
            ) from None
        self._special_tokens = dict(special_tokens)

    def render(self, query: str, document: str, instruction: str | None = None) -> str:
        """Return the prompt of a pair.

        With an ``instruction`` a message of role system comes first. Raises InvalidOption for what
        goes wrong inside the template.
        """
        variables = self._variables(query, document, instruction)
        size = len(query) + len(document) + len(instruction or "")
        return rendered(self._template, variables, size, self._fail)

    @cached_property
    def takes_instruction(self) -> bool:
        """Whether prompts depend on the instruction."""
        prompts = {self.render(_QUERY, _DOCUMENT, text) for text in ("one", "another")}
        return len(prompts) == 2

    @cached_property
    def needs_instruction(self) -> bool:
        """Whether nothing can be rendered without an instruction."""
        try:
            self.render(_QUERY, _DOCUMENT)
        except InvalidOption:
            return True
        return False

    def check(self) -> None:
        """Raise InvalidOption for a template that cannot be rendered, or leaves a text out."""
        instruction = "an instruction" if self.needs_instruction else None
        whole = self.render(_QUERY, _DOCUMENT, instruction)
        for name, other in (
            ("query", self.render("something else", _DOCUMENT, instruction)),
            ("document", self.render(_QUERY, "something else", instruction)),
        ):
            if other == whole:
                self._fail(f"leaves the {name} out: it has to show the query and the document")

    def _variables(self, query: str, document: str, instruction: str | None) -> dict[str, Any]:
        messages = [{"role": "query", "content": query}, {"role": "document", "content": document}]
        variables: dict[str, Any] = {
            **self._special_tokens,
            "query": query,
            "document": document,
            "add_generation_prompt": False,
        }
        if instruction is not None:
            variables |= {"instruction": instruction, "instruct": instruction}
            messages.insert(0, {"role": "system", "content": instruction})
        return {**variables, "messages": messages}

    def _fail(self, problem: str) -> NoReturn:
        if "'instruction' is undefined" in problem:
            problem += ": pass an instruction"
        raise InvalidOption(f"{self.param} {problem}", param=self.param) from None


@lru_cache(maxsize=32)
def parsed(source: str, special_tokens: tuple[tuple[str, str], ...]) -> ScoreTemplate:
    """Return the template of a request; the same source is parsed once."""
    template = ScoreTemplate(source, dict(special_tokens))
    template.check()
    return template


def special_tokens(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the special tokens that a tokenizer_config.json names, as templates see them."""
    found = {}
    for name in SPECIAL_TOKENS:
        value = settings.get(name)
        value = value.get("content") if isinstance(value, Mapping) else value
        if isinstance(value, str):
            found[name] = value
    return found


def with_values(source: str, values: Mapping[str, str | float | bool | None]) -> str:
    """Return a template that sets variables first; nothing else of what it renders changes."""
    lines = [
        # The plus keeps a line break that the template starts with.
        f"{{% set {name} = {'none' if value is None else to_json(value)} +%}}"
        for name, value in values.items()
    ]
    return "".join(lines) + source
