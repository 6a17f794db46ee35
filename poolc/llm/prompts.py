"""The forms in which vLLM takes prompts -> items of the Engine. Checks the form, not the text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from poolc.errors import InvalidText
from poolc.runtime.request import Item

Prompt = str | Sequence[int] | npt.NDArray[np.integer[Any]] | Mapping[str, Any]
Prompts = Prompt | Sequence[Prompt]

_ALLOWED = (
    'a string, a list of token ids, {"prompt": ...}, {"prompt_token_ids": ...}, or a list of these'
)


def as_items(prompts: Prompts) -> list[Item]:
    """Turn one prompt or a list of them, mixed forms allowed, into items.

    A non-empty list of whole numbers is one prompt. Raises InvalidText with the prompt's index.
    """
    if isinstance(prompts, (str, Mapping)) or _is_token_ids(prompts):
        return [_as_item(prompts, 0)]
    if not isinstance(prompts, (list, tuple)):
        raise InvalidText(f"prompts is {type(prompts).__name__}; allowed: {_ALLOWED}")
    if not prompts:
        raise InvalidText("the list of prompts is empty: pass at least one")
    return [_as_item(prompt, index) for index, prompt in enumerate(prompts)]


def as_texts(data: Any, name: str) -> list[str]:
    """Turn one side of ``LLM.score`` into texts. Raises InvalidText with the text's index."""
    items = [data] if isinstance(data, (str, Mapping)) else data
    if not isinstance(items, (list, tuple)):
        raise InvalidText(
            f"{name} is {type(data).__name__}; allowed: a string or a list of strings"
        )
    texts = []
    for index, item in enumerate(items):
        text = item.get("prompt") if isinstance(item, Mapping) and set(item) == {"prompt"} else item
        if not isinstance(text, str):
            raise InvalidText(
                f'{name}[{index}] is {_named(item)}; allowed: a string or {{"prompt": ...}}',
                index=index,
            )
        texts.append(text)
    return texts


def _as_item(prompt: Any, index: int) -> Item:
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, Mapping):
        return _from_mapping(prompt, index)
    if _is_token_ids(prompt):
        return list(prompt)
    raise InvalidText(f"prompt {index} is {_named(prompt)}; allowed: {_ALLOWED}", index=index)


def _from_mapping(prompt: Mapping[str, Any], index: int) -> Item:
    unknown = sorted(str(key) for key in prompt if key not in ("prompt", "prompt_token_ids"))
    if unknown or not prompt:
        keys = ", ".join(unknown) or "no keys"
        raise InvalidText(
            f"prompt {index} is an object with {keys}; allowed: prompt, prompt_token_ids",
            index=index,
        )
    # As in vLLM: with both, the ids are what runs and the text is what they came from.
    name = "prompt_token_ids" if "prompt_token_ids" in prompt else "prompt"
    value = prompt[name]
    if name == "prompt_token_ids" and _is_token_ids(value):
        return list(value)
    if name == "prompt" and isinstance(value, str):
        return value
    wanted = "a string" if name == "prompt" else "a list of token ids"
    raise InvalidText(f"prompt {index}: {name} is {_named(value)}; allowed: {wanted}", index=index)


def _is_token_ids(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim == 1 and len(value) > 0 and np.issubdtype(value.dtype, np.integer)
    if not isinstance(value, (list, tuple)) or not value:
        return False
    return all(isinstance(i, (int, np.integer)) and not isinstance(i, bool) for i in value)


def _named(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "an empty list" if not value else f"a list of {type(value[0]).__name__}"
    return type(value).__name__
