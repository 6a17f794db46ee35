"""What vLLM's ``PoolingParams.extra_kwargs`` say about the pairs of ``LLM.score``, as the Engine's
parameters. Knows names and values only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

from poolc.errors import InvalidOption, nearest

# vLLM's names -> fields of Params.
_BUDGETS = {"max_tokens_per_query": "max_query_length", "max_tokens_per_doc": "max_document_length"}
_KNOWN = (*_BUDGETS, "chat_template_kwargs")
_TEMPLATE_KNOWN = ("instruction",)


def checked_extra(value: object) -> dict[str, Any]:
    """Return ``extra_kwargs`` as a dict, empty for None. Raises InvalidOption."""
    extra = _mapping("extra_kwargs", value, _KNOWN)
    _mapping("chat_template_kwargs", extra.get("chat_template_kwargs"), _TEMPLATE_KNOWN)
    for name in _BUDGETS:
        number = extra.get(name)
        whole = isinstance(number, Integral) and not isinstance(number, bool)
        if number is not None and not (whole and number >= 0):
            raise InvalidOption(
                f"extra_kwargs: {name} is {number!r}; allowed: a number of tokens, 0 for no limit",
                param=name,
            )
    return extra


def pair_params(extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of Params that checked ``extra_kwargs`` set."""
    fields: dict[str, Any] = {
        field: int(extra[name]) for name, field in _BUDGETS.items() if extra.get(name)
    }
    instruction = (extra.get("chat_template_kwargs") or {}).get("instruction")
    return fields if instruction is None else {**fields, "instruction": instruction}


def _mapping(name: str, value: object, known: Sequence[str]) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidOption(f"{name} is {type(value).__name__}; allowed: a dict", param=name)
    for key in value:
        if key not in known:
            raise InvalidOption(
                f"{name} has {key!r}, which has no meaning here; {nearest(str(key), known)}",
                param=name,
            )
    return dict(value)
