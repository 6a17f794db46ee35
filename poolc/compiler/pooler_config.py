"""vLLM's ``--pooler-config`` object, read strictly: unknown fields and values are errors.

The fields are those of vLLM's page of 2025-09 and of its 0.32 spellings. Which of them a kind of
model has is decided in ``recognize/pooler.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from poolc.errors import InvalidOption, meant, nearest
from poolc.spec import Activation, PoolingType

TokenPooling = Literal["all", "step"]

_SEQUENCE = {
    "CLS": PoolingType.CLS,
    "LAST": PoolingType.LAST,
    "MEAN": PoolingType.MEAN,
    "MAX": PoolingType.MAX,
    "WEIGHTED_MEAN": PoolingType.WEIGHTED_MEAN,
    "MEAN_SQRT_LEN": PoolingType.MEAN_SQRT_LEN,
}
_TOKEN: dict[str, TokenPooling] = {"ALL": "all", "STEP": "step"}
# vLLM's names of what one model can be asked for, of both generations.
TASKS = (
    *("embed", "classify", "score", "reward", "encode"),
    *("token_embed", "token_classify", "embed&token_classify"),
)
_TOKEN_TASKS = ("encode", "token_embed")


@dataclass(frozen=True, slots=True)
class PoolerConfig:
    """What the user overrides; None where they said nothing.

    ``pooling`` is ALL only where an option says so of the whole model; ``token_pooling`` is what
    happens to models that answer with one row a token.
    """

    pooling: PoolingType | None = None
    normalize: bool | None = None
    use_activation: bool | None = None
    activation: Activation | None = None
    dimensions: int | None = None
    logit_mean: float | None = None  # logit_bias is the older spelling
    logit_sigma: float | None = None
    token_pooling: TokenPooling | None = None
    task: str | None = None
    step_tag_id: int | None = None
    returned_token_ids: tuple[int, ...] | None = None
    chunk: bool | None = None
    max_embed_length: int | None = None  # tokens
    given: frozenset[str] = frozenset()  # fields by the names that the user wrote
    written: Mapping[str, str] = field(default_factory=dict, compare=False)  # by fields above

    @property
    def unit(self) -> tuple[str, bool | None]:
        """Whether vectors get unit length, by either name: vLLM 0.32 calls it their activation."""
        if self.normalize is None:
            return "use_activation", self.use_activation
        return "normalize", self.normalize

    def origin(self, name: str) -> str:
        """Return where the value of a field comes from, as it was spelled."""
        return f"--pooler-config {self.written.get(name, name)}"


def parse(raw: Mapping[str, Any]) -> PoolerConfig:
    """Read the object.

    Raises InvalidOption that names the field, what was given and what is allowed.
    """
    for name in raw:
        if name not in _READERS:
            raise pooler_error(f"no field {name!r}; {nearest(name, tuple(_READERS))}")
    read = {name: _READERS[name](name, value) for name, value in raw.items() if value is not None}
    pooling, token_pooling = _pooling(read)
    return PoolerConfig(
        pooling=pooling,
        normalize=read.get("normalize"),
        use_activation=_use_activation(read),
        activation=_function(read),
        dimensions=read.get("dimensions"),
        logit_mean=_logit_mean(read),
        logit_sigma=read.get("logit_sigma"),
        token_pooling=token_pooling,
        task=read.get("task"),
        step_tag_id=read.get("step_tag_id"),
        returned_token_ids=read.get("returned_token_ids"),
        chunk=read.get("enable_chunked_processing"),
        max_embed_length=read.get("max_embed_len"),
        given=frozenset(read),
        written=_written(read),
    )


def pooler_error(message: str) -> InvalidOption:
    """Return the error of a pooler-config that does not fit."""
    return InvalidOption(f"pooler_config: {message}", param="pooler_config")


def _written(read: Mapping[str, Any]) -> dict[str, str]:
    """Return the user's spellings of what has several, by field."""
    poolings = ("pooling_type", "seq_pooling_type", "tok_pooling_type")
    spellings = {
        "pooling": poolings[:2],
        "token_pooling": poolings[::2],
        "use_activation": tuple(_switches(read)),
        "logit_mean": ("logit_mean", "logit_bias"),
    }
    return {
        name: " and ".join(word for word in words if word in read)
        for name, words in spellings.items()
        if any(word in read for word in words)
    }


def _pooling(read: Mapping[str, Any]) -> tuple[PoolingType | None, TokenPooling | None]:
    """Sort ``pooling_type`` into what pools texts and what keeps tokens."""
    either = read.get("pooling_type")
    sequence, token = read.get("seq_pooling_type"), read.get("tok_pooling_type")
    for name in ("seq_pooling_type", "tok_pooling_type"):
        if either is not None and name in read:
            raise pooler_error(f"pooling_type and {name} say the same: give one")
    if token == "STEP" and sequence is not None:
        raise pooler_error(
            f"seq_pooling_type {sequence} and tok_pooling_type STEP contradict each other: a model "
            "answers with one vector or with its steps; give one"
        )
    if either in _TOKEN:
        token = either
        # With a task that keeps all tokens, ALL says no more than the task.
        sequence = "ALL" if token == "ALL" and read.get("task") not in _TOKEN_TASKS else None
    elif either is not None:
        sequence = either
    pooling = PoolingType.ALL if sequence == "ALL" else _SEQUENCE.get(sequence or "")
    return pooling, _TOKEN.get(token or "")


def _switches(read: Mapping[str, Any]) -> dict[str, bool]:
    """Return the spellings of the switch; of 2025-09, ``activation`` is one where it is a flag."""
    names = ("softmax", "use_activation", "activation")
    return {name: read[name] for name in names if isinstance(read.get(name), bool)}


def _use_activation(read: Mapping[str, Any]) -> bool | None:
    switches = _switches(read)
    # An embedding model's activation is its normalisation.
    said = switches | ({"normalize": read["normalize"]} if "normalize" in read else {})
    if len(set(said.values())) > 1:
        yes = next(name for name, value in said.items() if value)
        no = next(name for name, value in said.items() if not value)
        raise pooler_error(
            f"{yes} is true and {no} is false, which contradict each other: give one"
        )
    return next(iter(switches.values()), None)


def _function(read: Mapping[str, Any]) -> Activation | None:
    function = read.get("activation")
    if not isinstance(function, Activation):
        return None
    softmax = read.get("softmax")
    if softmax is not None and softmax is not (function is Activation.SOFTMAX):
        raise pooler_error(
            f"softmax is {str(softmax).lower()} and activation is {function}, which contradict "
            "each other: give one"
        )
    return function


def _pooling_name(name: str, value: Any) -> str:
    allowed = {
        "pooling_type": (*_SEQUENCE, *_TOKEN),
        "seq_pooling_type": tuple(_SEQUENCE),
        "tok_pooling_type": tuple(_TOKEN),
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


def _logit_mean(read: Mapping[str, Any]) -> float | None:
    given = {read[name] for name in ("logit_mean", "logit_bias") if name in read}
    if len(given) > 1:
        raise pooler_error("logit_mean and logit_bias contradict each other: give one")
    return next(iter(given), None)


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


_READERS: dict[str, Callable[[str, Any], Any]] = {
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
FIELDS = tuple(_READERS)
