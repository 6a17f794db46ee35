"""Token classifiers: labels of every token, and what spans are made from."""

from __future__ import annotations

import numpy as np

from poolc.compiler.architecture import Architecture
from poolc.compiler.choices import Choices
from poolc.compiler.recognize.classifier import choose_activation
from poolc.compiler.recognize.context import Context
from poolc.compiler.recognize.labels import id2label
from poolc.errors import InvalidOption
from poolc.runtime.outputs import activate
from poolc.spec import PoolingType, Task


def choose_token_classifier(context: Context, arch: Architecture, choices: Choices) -> None:
    """Fill in the fields of Kind.TOKEN_CLASSIFIER. Raises InvalidOption."""
    origin = choices.origins["tasks"]
    choices.set("tasks", (Task.CLASSIFY_TOKENS, Task.ENCODE), origin)
    choices.set("pooling", (PoolingType.ALL,), "a label a token")
    labels = id2label(context)
    choices.set("labels", labels, "config.json: id2label")
    choose_activation(context, labels, choices)
    check_token_activation(choices)
    if context.pooler.use_activation is not None:
        origin = context.pooler.origin("use_activation")
        choices.set("use_activation", context.pooler.use_activation, origin)
    unknown = context.tokenizer.unk_token_id
    if unknown is not None:
        choices.values["unk_token_id"] = int(unknown)


def check_token_activation(choices: Choices) -> None:
    """Refuse a function that the runtime does not apply to logits of tokens."""
    try:
        activate(np.zeros((1, 1), np.float32), choices.values["activation"])
    except InvalidOption as error:
        raise InvalidOption(
            f"{choices.origins['activation']}: {error}", param="pooler_config"
        ) from None
