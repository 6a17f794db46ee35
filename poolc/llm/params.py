"""PoolingParams, and how they and vLLM's tokenisation arguments become the Engine's Params.

Both generations of spellings are read: ``normalize``, ``activation`` and ``softmax`` of 2025, and
``use_activation``, which replaced them. Knows nothing about texts or how a model runs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from poolc.errors import InvalidDimensions, InvalidOption
from poolc.llm.pair_params import checked_extra, pair_params
from poolc.llm.truncation import prompt_truncation, unknown_option, whole_number
from poolc.runtime.request import Params
from poolc.spec import Similarity, Task

# Which field of Params the switches of each task set, and which spellings it has.
_SWITCHES: Mapping[Task, tuple[str, tuple[str, ...]]] = {
    Task.EMBED: ("normalize", ("use_activation", "normalize")),
    Task.EMBED_TOKENS: ("normalize", ("use_activation", "normalize")),
    Task.EMBED_SPARSE: ("normalize", ()),
    Task.CLASSIFY: ("use_activation", ("use_activation", "activation", "softmax")),
    Task.SCORE: ("use_activation", ("use_activation", "activation", "softmax")),
    Task.REWARD: ("use_activation", ("use_activation", "activation", "softmax")),
    Task.ENCODE: ("normalize", ()),
    Task.CLASSIFY_TOKENS: ("use_activation", ("use_activation", "activation", "softmax")),
}
# Names that PoolingParams.task may have in a call of each task.
_TASK_NAMES: Mapping[Task, tuple[str, ...]] = {
    Task.EMBED: ("embed",),
    Task.EMBED_TOKENS: ("token_embed", "encode"),
    Task.EMBED_SPARSE: ("embed",),
    Task.CLASSIFY: ("classify", "score"),
    Task.SCORE: ("score", "classify", "embed"),
    Task.REWARD: ("reward", "encode", "token_classify", "classify"),
    Task.CLASSIFY_TOKENS: ("token_classify", "encode"),
    Task.ENCODE: ("encode", "token_embed"),
}
_SWITCH_NAMES = ("use_activation", "normalize", "activation", "softmax")
_NUMBER_NAMES = ("dimensions", "truncate_prompt_tokens", "step_tag_id")


@dataclass(frozen=True, slots=True, init=False)
class PoolingParams:
    """What one request may say. None means "as the model says".

    ``use_activation`` switches the last step of any task (normalising, softmax or sigmoid);
    ``normalize``, ``activation`` and ``softmax`` are its older spellings. ``side`` (not vLLM's)
    says whose text it is, query or document: its prompt and its route, as ``embed_query`` and
    ``embed_document`` of an Engine. ``extra_kwargs`` of a
    score: ``max_tokens_per_query``, ``max_tokens_per_doc`` (0: no limit) and
    ``chat_template_kwargs`` with an ``instruction``.
    """

    dimensions: int | None
    use_activation: bool | None
    normalize: bool | None
    activation: bool | None
    softmax: bool | None
    truncate_prompt_tokens: int | None  # -1: to the model's maximum
    task: str | None
    step_tag_id: int | None  # rewards only at tokens with this id
    returned_token_ids: tuple[int, ...] | None  # columns of a reward, by token id
    side: str | None
    extra_kwargs: Mapping[str, Any] = field(hash=False)

    def __init__(
        self,
        *,
        dimensions: int | None = None,
        use_activation: bool | None = None,
        normalize: bool | None = None,
        activation: bool | None = None,
        softmax: bool | None = None,
        truncate_prompt_tokens: int | None = None,
        task: str | None = None,
        step_tag_id: int | None = None,
        returned_token_ids: Sequence[int] | None = None,
        side: str | None = None,
        extra_kwargs: Mapping[str, Any] | None = None,
        **unknown: object,
    ) -> None:
        """Take the fields by name. Raises InvalidOption for another name or a wrong type."""
        names = [f.name for f in dataclasses.fields(self)]
        for name in unknown:
            raise unknown_option("PoolingParams", name, names)
        values = (
            dimensions,
            use_activation,
            normalize,
            activation,
            softmax,
            truncate_prompt_tokens,
            task,
            step_tag_id,
            returned_token_ids,
            side,
            checked_extra(extra_kwargs),
        )
        for name, value in zip(names, values, strict=True):
            object.__setattr__(self, name, _checked(name, value))


@dataclass(frozen=True, slots=True)
class Model:
    """What the conversion has to know of the model that a request is for."""

    name: str  # as the user gave it, for messages
    max_length: int  # tokens
    matryoshka: bool


def per_prompt(
    given: PoolingParams | Sequence[PoolingParams] | None, num_prompts: int
) -> list[PoolingParams]:
    """Return one PoolingParams a prompt. Raises InvalidOption where the lengths differ."""
    if given is None:
        given = PoolingParams()
    if isinstance(given, PoolingParams):
        return [given] * num_prompts
    if not isinstance(given, (list, tuple)) or not all(isinstance(p, PoolingParams) for p in given):
        raise InvalidOption(
            f"pooling_params is {type(given).__name__}; allowed: a PoolingParams or a list of them",
            param="pooling_params",
        )
    if len(given) != num_prompts:
        raise InvalidOption(
            f"The lengths of prompts ({num_prompts}) and params ({len(given)}) must be the same.",
            param="pooling_params",
        )
    return list(given)


def task_of(params: Sequence[PoolingParams]) -> str | None:
    """Return the task that all of them name, None where none does. Raises InvalidOption."""
    names = {one.task for one in params}
    if len(names) > 1:
        raise InvalidOption(
            f"the PoolingParams of one call name several tasks: {', '.join(map(str, names))}; "
            "make one call for each",
            param="task",
        )
    return names.pop() if names else None


def request_params(
    task: Task, given: PoolingParams, base: Params, model: Model, index: int
) -> Params:
    """Return the Engine's Params of prompt ``index``; ``base`` holds what all prompts share.

    Raises InvalidDimensions for a Matryoshka size of a model that declares none, and InvalidOption.
    """
    if given.task not in (None, *_TASK_NAMES[task]):
        raise InvalidOption(
            f"PoolingParams of prompt {index}: task is {given.task!r} in a call of {task}; "
            "leave it out",
            index=index,
            param="task",
        )
    if given.dimensions is not None and not model.matryoshka:
        raise InvalidDimensions(
            f'Model "{model.name}" does not support matryoshka representation, changing output '
            "dimensions will lead to poor results.",
            index=index,
            param="dimensions",
        )
    base = prompt_truncation(given.truncate_prompt_tokens, base, model.max_length, index)
    if given.side is not None:  # with its prompt, which was asked for by this
        base = replace(base, side=given.side, prompt=None)
    if not base.truncate:  # a side of nothing: transformers takes it too
        base = replace(base, truncation_side=None)
    switch, value = _switch(task, given, index)
    said: dict[str, Any] = {switch: value, **pair_params(given.extra_kwargs)}
    if given.extra_kwargs and task is not Task.SCORE:
        raise InvalidOption(
            f"PoolingParams of prompt {index}: extra_kwargs are about the pairs of score, and this "
            f"is a call of {task}; leave them out",
            index=index,
            param="extra_kwargs",
        )
    # vLLM compares vectors by their cosine, whatever the model's files say.
    similarity = Similarity.COSINE if task is Task.SCORE else None
    if said[switch] is None:
        said[switch] = getattr(base, switch)
    return replace(
        base,
        dimensions=base.dimensions if given.dimensions is None else given.dimensions,
        similarity=similarity,
        step_tag_id=given.step_tag_id,
        returned_token_ids=given.returned_token_ids,
        **said,
    )


def _checked(name: str, value: object) -> object:
    """Return a field of PoolingParams as its type says. Raises InvalidOption for another type."""
    if name in _NUMBER_NAMES:
        return whole_number(name, value)
    if name == "returned_token_ids" and value is not None:
        if not isinstance(value, list | tuple):
            raise InvalidOption(
                f"PoolingParams: {name} is {value!r}; allowed: a list of token ids", param=name
            )
        return tuple(whole_number(name, item) for item in value)
    if name in _SWITCH_NAMES and not isinstance(value, bool | None):
        raise InvalidOption(
            f"PoolingParams: {name} is {value!r}; allowed: True, False, None", param=name
        )
    if name in ("task", "side") and not isinstance(value, str | None):
        raise InvalidOption(f"PoolingParams: {name} is {value!r}; allowed: a name", param=name)
    return value


def _switch(task: Task, given: PoolingParams, index: int) -> tuple[str, bool | None]:
    field, allowed = _SWITCHES[task]
    said: dict[str, bool] = {}
    for name in _SWITCH_NAMES:
        value = getattr(given, name)
        if value is None:
            continue
        if name not in allowed:
            raise InvalidOption(
                f"PoolingParams of prompt {index}: {name} does not apply to {task}; "
                f"allowed: {', '.join(allowed) or 'none of these switches'}",
                index=index,
                param=name,
            )
        said[name] = value
    if len(set(said.values())) > 1:
        raise InvalidOption(
            f"PoolingParams of prompt {index}: {' and '.join(said)} mean the same and differ",
            index=index,
        )
    return field, next(iter(said.values()), None)
