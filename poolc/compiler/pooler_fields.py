"""The fields of ``--pooler-config``, and how the value of each is read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from poolc.errors import InvalidOption, meant
from poolc.spec import Activation, PoolingType

TokenPooling = Literal["all", "step"]

SEQUENCE_POOLINGS = {
    "CLS": PoolingType.CLS,
    "LAST": PoolingType.LAST,
    "MEAN": PoolingType.MEAN,
    "MAX": PoolingType.MAX,
    "WEIGHTED_MEAN": PoolingType.WEIGHTED_MEAN,
    "MEAN_SQRT_LEN": PoolingType.MEAN_SQRT_LEN,
}
TOKEN_POOLINGS: dict[str, TokenPooling] = {"ALL": "all", "STEP": "step"}
# vLLM's names of what one model can be asked for, of both generations.
TASKS = (
    *("embed", "classify", "score", "reward", "encode"),
    *("token_embed", "token_classify", "embed&token_classify"),
)


def pooler_error(message: str) -> InvalidOption:
    """Return the error of a pooler-config that does not fit."""
    return InvalidOption(f"pooler_config: {message}", param="pooler_config")


def _pooling_name(name: str, value: Any) -> str:
    allowed = {
        "pooling_type": (*SEQUENCE_POOLINGS, *TOKEN_POOLINGS),
        "seq_pooling_type": tuple(SEQUENCE_POOLINGS),
        "tok_pooling_type": tuple(TOKEN_POOLINGS),
    }[name]
    if not isinstance(value, str) or value.upper() not in allowed:
        raise _wrong(name, value, allowed)
    return value.upper()


def _task(name: str, value: Any) -> str:
    if value not in TASKS:
        raise _wrong(name, value, TASKS)
    return str(value)


def _activation(name: str, value: Any) -> Activation | bool:
    # The 2025-09 page has a flag here; a name chooses the function.
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or value.lower() not in set(Activation):
        raise _wrong(name, value, tuple(Activation))
    return Activation(value.lower())


def _wrong(name: str, value: Any, allowed: Sequence[str]) -> InvalidOption:
    """Return the error of a value that is none of a list's, with the nearest that is."""
    return pooler_error(
        f"{name} is {value!r}; allowed: {', '.join(allowed)}{meant(value, allowed)}"
    )


def _flag(name: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise pooler_error(f"{name} is {value!r}; allowed: true, false")


def _size(name: str, value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    raise pooler_error(f"{name} is {value!r}; allowed: a positive integer")


def _sigma(name: str, value: Any) -> float:
    sigma = _number(name, value)
    if sigma == 0:
        raise pooler_error(f"{name} is 0, which nothing can be divided by; allowed: other numbers")
    return sigma


def _number(name: str, value: Any) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value):
        raise pooler_error(f"{name} is {value!r}; allowed: a finite number")
    return float(value)


def _token_id(name: str, value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise pooler_error(f"{name} is {value!r}; allowed: a token id, 0 or more")


def _token_ids(name: str, value: Any) -> tuple[int, ...]:
    if isinstance(value, list | tuple) and value:
        ids = tuple(_token_id(f"{name}[{i}]", item) for i, item in enumerate(value))
        if len(set(ids)) == len(ids):
            return ids
    raise pooler_error(f"{name} is {value!r}; allowed: a list of different token ids")


READERS: Mapping[str, Callable[[str, Any], Any]] = {
    "pooling_type": _pooling_name,
    "seq_pooling_type": _pooling_name,
    "tok_pooling_type": _pooling_name,
    "task": _task,
    "normalize": _flag,
    "softmax": _flag,
    "use_activation": _flag,
    "activation": _activation,
    "dimensions": _size,
    "step_tag_id": _token_id,
    "returned_token_ids": _token_ids,
    "enable_chunked_processing": _flag,
    "max_embed_len": _size,
    "enable_flash_late_interaction": _flag,
    "logit_mean": _number,
    "logit_bias": _number,
    "logit_sigma": _sigma,
}
