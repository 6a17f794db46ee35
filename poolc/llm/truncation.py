"""What a call and its prompts say about tokenising, in vLLM's names: one wish has one value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

from poolc.errors import InvalidOption, nearest
from poolc.runtime.request import Params

_TOKENIZATION = (
    "truncate_prompt_tokens",
    "truncation",
    "truncation_side",
    "max_length",
    "padding",
    "add_special_tokens",
)


def prompt_truncation(num_tokens: int | None, base: Params, max_length: int, index: int) -> Params:
    """Return ``base`` with the truncation that one prompt asks for. Raises InvalidOption."""
    if num_tokens is None:
        return base
    asked = base.truncated_to(num_tokens, max_length)
    if base.truncate and asked.max_length != base.max_length:
        raise InvalidOption(
            f"PoolingParams of prompt {index}: truncate_prompt_tokens is "
            f"{num_tokens}, but the call says {base.max_length}: give one",
            index=index,
            param="truncate_prompt_tokens",
        )
    return asked


def shared_params(
    truncate_prompt_tokens: int | None,
    tokenization_kwargs: Mapping[str, Any] | None,
    max_length: int,
) -> Params:
    """Return Params with what a call says about tokenising; no prompt of the model is applied.

    ``max_length`` is the model's maximum in tokens.

    Raises InvalidOption for a key or value that has no equivalent.
    """
    if not isinstance(tokenization_kwargs, Mapping | None):
        raise InvalidOption(
            f"tokenization_kwargs is {type(tokenization_kwargs).__name__}; allowed: a dict",
            param="tokenization_kwargs",
        )
    kwargs = dict(tokenization_kwargs or {})
    for name in kwargs:
        if name not in _TOKENIZATION:
            raise unknown_option("tokenization_kwargs", name, _TOKENIZATION)
    _allow(kwargs, "truncation_side", (None, "left", "right"))
    _allow(kwargs, "padding", (None, False, "do_not_pad"))
    _allow(kwargs, "add_special_tokens", (None, True, False))
    _allow(kwargs, "truncation", (None, False, "do_not_truncate", True, "longest_first"))
    base = Params(
        prompt="",
        max_length=whole_number("max_length", kwargs.get("max_length", max_length)),
        truncate=kwargs.get("truncation") in (True, "longest_first"),
        truncation_side=kwargs.get("truncation_side"),
        add_special_tokens=kwargs.get("add_special_tokens") is not False,
    )
    asked = kwargs.get("truncate_prompt_tokens")
    if truncate_prompt_tokens is None:
        truncate_prompt_tokens = asked
    if truncate_prompt_tokens is None:
        return base
    made = base.truncated_to(truncate_prompt_tokens, max_length)
    _check_agreement(truncate_prompt_tokens, asked, made, kwargs, max_length)
    return made


def _check_agreement(
    said: int, also: object, made: Params, kwargs: Mapping[str, Any], max_length: int
) -> None:
    """Refuse two spellings of truncation that differ. Raises InvalidOption."""
    others = {"max_length": kwargs.get("max_length")}
    if also is not None:
        others["truncate_prompt_tokens"] = made.truncated_to(also, max_length).max_length
    for name, value in others.items():
        if value is not None and value != made.max_length:
            raise InvalidOption(
                f"truncate_prompt_tokens is {said}, but {name} of tokenization_kwargs is "
                f"{kwargs[name]}: give one",
                param="truncate_prompt_tokens",
            )
    if kwargs.get("truncation") in (False, "do_not_truncate"):
        raise InvalidOption(
            f"truncate_prompt_tokens is {said}, but truncation of tokenization_kwargs is "
            f"{kwargs['truncation']!r}: give one",
            param="truncate_prompt_tokens",
        )


def unknown_option(owner: str, name: str, known: Sequence[str]) -> InvalidOption:
    """Return the error for an unknown name, with the nearest known one where there is one."""
    return InvalidOption(f"{owner} has no {name!r}; {nearest(name, known)}", param=name)


def whole_number(name: str, value: object) -> int | None:
    """Return the argument ``name`` as an int, or None. Raises InvalidOption for anything else."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InvalidOption(f"{name} is {value!r}; allowed: a whole number", param=name)
    return int(value)


def _allow(kwargs: Mapping[str, Any], name: str, allowed: Sequence[str | bool | None]) -> None:
    value = kwargs.get(name)
    # 1 == True in Python; here it is a mistake.
    if not any(type(value) is type(option) and value == option for option in allowed):
        shown = ", ".join(repr(option) for option in allowed if option is not None)
        raise InvalidOption(
            f"tokenization_kwargs: {name} is {value!r}; allowed: {shown}", param=name
        )
