"""Which prefix a request puts before its texts, by Sentence Transformers' rules."""

from __future__ import annotations

from poolc.errors import InvalidOption
from poolc.runtime.request import Params
from poolc.spec import ModelSpec

# Sentence Transformers gives every model these two, empty unless its files say otherwise. So its
# encode_document never gets to the other names that it would try, passage and corpus.
QUERY_PROMPT = "query"
DOCUMENT_PROMPT = "document"
_ALWAYS = (QUERY_PROMPT, DOCUMENT_PROMPT)
PLAIN = "plain"  # a side for neither: no prompt, every token
SIDES = (*_ALWAYS, PLAIN)


def resolve_prompt(spec: ModelSpec, params: Params) -> str:
    """Return the prefix: the request's own, the one it names, its side's, or the model's default.

    "" where there is none.

    Raises InvalidOption for a name that the model does not have, and a prompt that is not text.
    """
    if params.prompt is not None:
        return _checked(params.prompt)
    name = params.prompt_name
    if name is None:
        name = params.side if params.side is not None else spec.default_prompt_name
    if name is None or (params.prompt_name is None and name == PLAIN):
        return ""
    if not isinstance(name, str):
        raise InvalidOption(
            f"prompt_name is {type(name).__name__}; allowed: a string", param="prompt_name"
        )
    if name in spec.prompts:
        return spec.prompts[name]
    if name in _ALWAYS:
        return ""
    known = ", ".join(sorted({*spec.prompts, *_ALWAYS}))
    raise InvalidOption(f"prompt_name is {name!r}; this model has: {known}", param="prompt_name")


def _checked(prompt: object) -> str:
    if not isinstance(prompt, str):
        raise InvalidOption(f"prompt is {type(prompt).__name__}; allowed: a string", param="prompt")
    try:
        prompt.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidOption(
            f"prompt is not valid Unicode: a lone surrogate at position {error.start}",
            param="prompt",
        ) from None
    return prompt
