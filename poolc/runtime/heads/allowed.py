"""Which parameters each task obeys. What it would pass over in silence is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

from poolc.errors import InvalidOption
from poolc.runtime.request import Params
from poolc.spec import Kind, ModelSpec, Task

_VECTORS = (Task.EMBED, Task.EMBED_TOKENS, Task.EMBED_HYBRID)
_EMBEDS = (*_VECTORS, Task.EMBED_SPARSE)
_LABELS = (Task.CLASSIFY, Task.CLASSIFY_TOKENS, Task.REWARD)
# Parameters that are not here have a check of their own, or mean the same to every task.
_OBEYED: Mapping[str, tuple[Task, ...]] = {
    "normalize": (*_VECTORS, Task.ENCODE),
    "output_dtype": _VECTORS,
    "prompt_name": (*_EMBEDS, Task.SCORE),
    "prompt": (*_EMBEDS, Task.SCORE),
    "use_activation": (*_LABELS, Task.SCORE),
    "side": (*_EMBEDS, Task.ENCODE),
}
_USUAL = {field.name: field.default for field in fields(Params)} | {"prompt": ""}


def check_obeyed(spec: ModelSpec, task: Task, params: Params) -> None:
    """Raise InvalidOption for a parameter that has no meaning for a task of this model."""
    obeyed = [name for name, tasks in _OBEYED.items() if task in tasks and _has(spec, task, name)]
    for name in _OBEYED:
        value = getattr(params, name)
        if name in obeyed or value is None or value == _USUAL[name]:
            continue
        allowed = f"of such parameters it has: {', '.join(obeyed)}" if obeyed else "leave it out"
        raise InvalidOption(
            f"{name} is {value!r}, which {task} of this model ({spec.kind}) does not obey; "
            f"{allowed}",
            param=name,
        )


def _has(spec: ModelSpec, task: Task, name: str) -> bool:
    """Return whether a model has what a parameter that its task may obey acts on."""
    if name == "use_activation":
        return bool(spec.labels)
    if name in ("prompt", "prompt_name"):
        return spec.embedding_size is not None
    if task is not Task.ENCODE:
        return True
    return spec.router is not None if name == "side" else spec.kind is Kind.EMBEDDING
