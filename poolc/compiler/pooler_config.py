"""vLLM's ``--pooler-config`` object, read strictly: unknown fields and values are errors.

The fields are those of vLLM's page of 2025-09 and of its 0.32 spellings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from poolc.errors import InvalidOption, nearest
from poolc.spec import Activation, PoolingType

_POOLING = {
    "CLS": PoolingType.CLS,
    "LAST": PoolingType.LAST,
    "MEAN": PoolingType.MEAN,
    "MAX": PoolingType.MAX,
    "ALL": PoolingType.ALL,
    "WEIGHTED_MEAN": PoolingType.WEIGHTED_MEAN,
    "MEAN_SQRT_LEN": PoolingType.MEAN_SQRT_LEN,
}
_FIELDS = (
    "pooling_type",
    "seq_pooling_type",
    "normalize",
    "softmax",
    "use_activation",
    "activation",
    "dimensions",
    "logit_mean",
    "logit_sigma",
    "logit_bias",
)


@dataclass(frozen=True, slots=True)
class PoolerConfig:
    """What the user overrides; None where they said nothing."""

    pooling: PoolingType | None = None
    normalize: bool | None = None
    use_activation: bool | None = None
    activation: Activation | None = None
    dimensions: int | None = None
    logit_mean: float | None = None  # logit_bias is the older spelling
    logit_sigma: float | None = None


def parse(raw: Mapping[str, Any]) -> PoolerConfig:
    """Read the object.

    Raises InvalidOption that names the field, what was given and what is allowed.
    """
    for name in raw:
        if name not in _FIELDS:
            raise _error(f"no field {name!r}; {nearest(name, _FIELDS)}")
    if "pooling_type" in raw and "seq_pooling_type" in raw:
        raise _error("pooling_type and seq_pooling_type say the same: give one")
    activate = [raw[name] for name in ("softmax", "use_activation") if raw.get(name) is not None]
    if len({*map(repr, activate)}) > 1:
        raise _error("softmax and use_activation contradict each other: give one")
    return PoolerConfig(
        pooling=_pooling(raw.get("pooling_type", raw.get("seq_pooling_type"))),
        normalize=_flag("normalize", raw.get("normalize")),
        use_activation=_flag("use_activation", activate[0] if activate else None),
        activation=_activation(raw.get("activation")),
        dimensions=_dimensions(raw.get("dimensions")),
        logit_mean=_logit_mean(raw),
        logit_sigma=_logit_sigma(raw),
    )


def _pooling(value: Any) -> PoolingType | None:
    if value is None:
        return None
    if not isinstance(value, str) or value.upper() not in _POOLING:
        raise _error(f"pooling_type is {value!r}; allowed: {', '.join(_POOLING)}")
    return _POOLING[value.upper()]


def _activation(value: Any) -> Activation | None:
    # The 2025-09 page has a flag here; a name chooses the function.
    if value is None or isinstance(value, bool):
        return None if value is not False else Activation.IDENTITY
    if not isinstance(value, str) or value.lower() not in set(Activation):
        raise _error(f"activation is {value!r}; allowed: {', '.join(Activation)}")
    return Activation(value.lower())


def _flag(name: str, value: Any) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    raise _error(f"{name} is {value!r}; allowed: true, false")


def _dimensions(value: Any) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    raise _error(f"dimensions is {value!r}; allowed: a positive integer")


def _logit_mean(raw: Mapping[str, Any]) -> float | None:
    values = {name: _number(name, raw.get(name)) for name in ("logit_mean", "logit_bias")}
    given = {value for value in values.values() if value is not None}
    if len(given) > 1:
        raise _error("logit_mean and logit_bias contradict each other: give one")
    return next(iter(given), None)


def _logit_sigma(raw: Mapping[str, Any]) -> float | None:
    sigma = _number("logit_sigma", raw.get("logit_sigma"))
    if sigma == 0:
        raise _error("logit_sigma is 0, which logits cannot be divided by; allowed: other numbers")
    return sigma


def _number(name: str, value: Any) -> float | None:
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value):
        raise _error(f"{name} is {value!r}; allowed: a finite number")
    return float(value)


def _error(message: str) -> InvalidOption:
    return InvalidOption(f"pooler_config: {message}", param="pooler_config")
