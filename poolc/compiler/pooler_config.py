"""vLLM's ``--pooler-config`` object, read strictly: unknown fields and values are errors.

The fields are those of vLLM's page of 2025-09 and of its 0.32 spellings. Which of them a kind of
model has is decided in ``recognize/pooler.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from poolc.compiler.pooler_fields import (
    READERS,
    SEQUENCE_POOLINGS,
    TOKEN_POOLINGS,
    TokenPooling,
    pooler_error,
)
from poolc.errors import nearest
from poolc.spec import Activation, PoolingType

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
        if name not in READERS:
            raise pooler_error(f"no field {name!r}; {nearest(name, tuple(READERS))}")
    read = {name: READERS[name](name, value) for name, value in raw.items() if value is not None}
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
    if either in TOKEN_POOLINGS:
        token = either
        # With a task that keeps all tokens, ALL says no more than the task.
        sequence = "ALL" if token == "ALL" and read.get("task") not in _TOKEN_TASKS else None
    elif either is not None:
        sequence = either
    pooling = PoolingType.ALL if sequence == "ALL" else SEQUENCE_POOLINGS.get(sequence or "")
    return pooling, TOKEN_POOLINGS.get(token or "")


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


def _logit_mean(read: Mapping[str, Any]) -> float | None:
    given = {read[name] for name in ("logit_mean", "logit_bias") if name in read}
    if len(given) > 1:
        raise pooler_error("logit_mean and logit_bias contradict each other: give one")
    return next(iter(given), None)
