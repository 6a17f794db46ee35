"""vLLM's names of tasks, of both generations -> tasks of the Engine; and what to do instead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from poolc.errors import InputError, InvalidOption, UnsupportedTask
from poolc.spec import Kind, ModelSpec, Task

_TASKS: Mapping[str, Task] = {
    "embed": Task.EMBED,
    "classify": Task.CLASSIFY,
    "score": Task.CLASSIFY,
    "reward": Task.REWARD,
    "token_embed": Task.ENCODE,
    "token_classify": Task.CLASSIFY_TOKENS,
    "encode": Task.ENCODE,
}
_CALLS: Mapping[Task, str] = {
    Task.EMBED: "use LLM.embed(...)",
    Task.CLASSIFY: "use LLM.classify(...)",
    Task.SCORE: "use LLM.score(...)",
    Task.REWARD: "use LLM.reward(...)",
    Task.CLASSIFY_TOKENS: 'use LLM.encode(..., pooling_task="token_classify")',
    Task.EMBED_TOKENS: 'use LLM.encode(..., pooling_task="token_embed")',
    Task.EMBED_SPARSE: "use LLM.embed(...)",
    Task.ENCODE: 'use LLM.encode(..., pooling_task="token_embed")',
}
# What the Engine's messages say -> what a caller of LLM can do.
_WORDS = (
    ("ask for truncation (truncate=True)", "pass truncate_prompt_tokens=-1 to cut it"),
    ("side the texts are of with side (", "side the texts are of with PoolingParams(side=...) ("),
    ("raise max_length", "raise truncate_prompt_tokens"),
    ("encode without dimensions and normalize gives", 'pooling_task="encode" gives'),
)
_CONVERT: Mapping[Task, str] = {
    Task.EMBED: 'LLM(model, convert="embed") makes an embedding model of it',
    Task.REWARD: 'LLM(model, convert="reward") makes a reward model of one without labels',
}


def task_named(name: str, spec: ModelSpec, param: str = "pooling_task") -> Task:
    """Return the task that ``pooling_task`` means for a model; errors call it ``param``.

    Raises InvalidOption for another name, UnsupportedTask where one prompt has no score.
    """
    if name not in _TASKS:
        raise InvalidOption(f"{param} is {name!r}; allowed: {', '.join(_TASKS)}", param=param)
    if name == "score" and Task.SCORE not in spec.tasks:
        return Task.SCORE  # for ``require`` to refuse
    if name == "score" and len(spec.labels) != 1:
        raise UnsupportedTask(
            "a single prompt has a score only where the model has one label; this one has "
            f"{len(spec.labels)}: use LLM.score(...)",
            param=param,
        )
    if name == "embed" and spec.kind is Kind.SPARSE:
        return Task.EMBED_SPARSE
    if name == "token_embed" and Task.EMBED_TOKENS in spec.tasks:
        return Task.EMBED_TOKENS
    if name == "token_classify" and spec.kind is Kind.HYBRID:
        return Task.EMBED_SPARSE  # by token: see LLM._params
    if name in ("token_classify", "encode") and spec.kind is Kind.REWARD:
        return Task.REWARD  # as LLM.reward, which is vLLM's encode of reward models
    if name == "encode" and spec.kind is Kind.TOKEN_CLASSIFIER:
        return Task.CLASSIFY_TOKENS
    return _TASKS[name]


def is_dense(spec: ModelSpec) -> bool:
    """Return whether a model embeds texts as one vector, so that its tokens' rows are like it."""
    return spec.kind is Kind.EMBEDDING and spec.embedding_size is not None


def check_score(spec: ModelSpec) -> None:
    """Raise UnsupportedTask where a score is one of several labels, which LLM cannot name."""
    if len(spec.labels) > 1:
        raise UnsupportedTask(
            f"LLM.score is for models with one label; this one has {len(spec.labels)} "
            f"({', '.join(spec.labels)}): LLM.classify gives all of them of a text, and "
            "poolc.load(model).score(..., label=...) one of them of a pair"
        )


@contextmanager
def in_own_words() -> Iterator[None]:
    """Name LLM's parameters in errors that name the Engine's."""
    try:
        yield
    except InputError as error:
        message = str(error)
        for theirs, ours in _WORDS:
            message = message.replace(theirs, ours)
        param = {"truncate": "truncate_prompt_tokens"}.get(error.param or "", error.param)
        raise type(error)(message, index=error.index, param=param) from error


def require(task: Task, spec: ModelSpec) -> None:
    """Raise UnsupportedTask, saying what to do, where the model does not do ``task``."""
    if task in spec.tasks:
        return
    usable = next((_CALLS[other] for other in spec.tasks if other in _CALLS), "")
    advice = [text for text in (usable, _CONVERT.get(task, "")) if text]
    raise UnsupportedTask(
        f"this model does not support {task}; it supports: {', '.join(spec.tasks)}: "
        + "; or ".join(advice)
    )
