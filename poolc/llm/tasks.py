"""vLLM's names of tasks, of both generations -> tasks of the Engine; and what to do instead."""

from __future__ import annotations

from collections.abc import Mapping

from poolc.errors import InvalidOption, UnsupportedTask
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
    Task.ENCODE: 'use LLM.encode(..., pooling_task="token_embed")',
}
_CONVERT: Mapping[Task, str] = {
    Task.EMBED: 'LLM(model, convert="embed") makes an embedding model of it',
    Task.REWARD: 'LLM(model, convert="reward") makes a reward model of one without labels',
}


def task_named(name: str, spec: ModelSpec) -> Task:
    """Return the task that ``pooling_task`` means for a model.

    Raises InvalidOption for another name, UnsupportedTask where one prompt has no score.
    """
    if name not in _TASKS:
        raise InvalidOption(
            f"pooling_task is {name!r}; allowed: {', '.join(_TASKS)}", param="pooling_task"
        )
    if name == "score" and Task.SCORE not in spec.tasks:
        return Task.SCORE  # for ``require`` to refuse
    if name == "score" and len(spec.labels) != 1:
        raise UnsupportedTask(
            "a single prompt has a score only where the model has one label; this one has "
            f"{len(spec.labels)}: use LLM.score(...)",
            param="pooling_task",
        )
    if name == "embed" and spec.kind is Kind.SPARSE:
        return Task.EMBED_SPARSE
    if name == "token_embed" and Task.EMBED_TOKENS in spec.tasks:
        return Task.EMBED_TOKENS
    if name == "token_classify" and spec.kind is Kind.REWARD:
        return Task.REWARD
    return _TASKS[name]


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
