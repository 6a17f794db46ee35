"""Token-level reward models, process rewards among them.

A reward for the whole text is a classifier's one label. Where the class has a head over its tokens
its columns are the reward, of a language model the chosen rows of its head; without either the
hidden states are the answer, as on vLLM's page of 2025-09.
"""

from __future__ import annotations

from poolc.compiler.architecture import Architecture
from poolc.compiler.choices import Choices
from poolc.compiler.pooler_fields import pooler_error
from poolc.compiler.recognize.classifier import choose_activation
from poolc.compiler.recognize.context import Context
from poolc.compiler.recognize.labels import id2label
from poolc.compiler.recognize.token_classifier import check_token_activation
from poolc.spec import Activation, LmHeadSpec, PoolingType, StepSpec, Task, Trunk

_PROCESS = "ForProcessRewardModel"
# The token that ends a step in prompts of Qwen2.5-Math-PRM, and so of what was trained like it.
_STEP_TAG = "<extra_0>"


def choose_reward(context: Context, arch: Architecture, choices: Choices) -> None:
    """Fill in the fields of Kind.REWARD. Raises InvalidOption."""
    choices.set("tasks", (Task.REWARD, Task.ENCODE), choices.origins["tasks"])
    labels, origin = _labels(context, arch)
    pooler = context.pooler
    process = arch.name.endswith(_PROCESS)
    steps = pooler.token_pooling == "step" or (process and pooler.token_pooling is None)
    if not steps:
        _refuse_step_fields(context)
    if steps and not labels:
        raise pooler_error(
            f"pooling_type STEP needs logits of tokens, and {arch.name} has none: its class has no "
            "head over the tokens"
        )
    asked = pooler.token_pooling is not None
    named = f"{pooler.origin('token_pooling')} {(pooler.token_pooling or '').upper()}"
    default = f"default of *{_PROCESS}: steps" if steps else "default of reward models: every token"
    choices.set("pooling", (PoolingType.ALL,), named if asked else default)
    if labels:
        choices.set("labels", labels, origin)
        choose_activation(context, labels, choices)
        check_token_activation(choices)
        if "label(s)" in choices.origins["activation"]:
            choices.origins["activation"] = _by_count(len(labels))
        _choose_use(context, steps, choices)
        _check_softmax(context, len(labels))
    elif {"softmax", "use_activation", "activation"} & pooler.given:
        raise pooler_error(
            f"{arch.name} answers with hidden states, which have no activation: leave softmax, "
            "use_activation and activation out"
        )
    if steps:
        _choose_step(context, arch, len(labels), choices)


def _labels(context: Context, arch: Architecture) -> tuple[tuple[str, ...], str]:
    """Return the names of the columns, and where they come from; none without a head."""
    if arch.trunk is Trunk.TOKEN_CLASSIFIER:
        return id2label(context), "config.json: id2label"
    if arch.trunk is Trunk.CAUSAL_LM:
        ids = context.pooler.returned_token_ids
        if ids is None:
            raise pooler_error(
                f"pooling_type STEP of {arch.name}, a language model, needs returned_token_ids: "
                "the tokens whose logits are the reward, such as those of + and -"
            )
        _check_vocabulary("returned_token_ids", ids, context, arch)
        names = context.tokenizer.convert_ids_to_tokens(list(ids))
        labels = tuple(str(name) for name in names)
        return labels, "--pooler-config returned_token_ids: tokens of the vocabulary"
    if arch.token_head is None:
        return (), ""
    columns = arch.token_head.columns
    if len(context.config.id2label or {}) == columns:
        return id2label(context), "config.json: id2label"
    head = f"{arch.name}: {columns} column(s) of {arch.token_head.name}"
    return tuple(f"LABEL_{i}" for i in range(columns)), head


def _by_count(columns: int) -> str:
    one = "; of one selected column: sigmoid" if columns > 1 else ""
    return f"{columns} column(s) of logits{one}"


def _check_softmax(context: Context, columns: int) -> None:
    chosen = len(context.pooler.returned_token_ids or range(columns))
    if chosen == 1 and context.pooler.activation is Activation.SOFTMAX:
        raise pooler_error(
            "activation is softmax, which says 1 of every token where one column is selected: "
            "leave it out for a sigmoid, or select more columns"
        )


def _choose_use(context: Context, steps: bool, choices: Choices) -> None:
    """vLLM's page of 2025-09: rewards have no softmax; its process rewards have one."""
    default = "process rewards are probabilities" if steps else "rewards are raw"
    choices.set("use_activation", steps, f"default of reward models: {default}")
    if context.pooler.use_activation is not None:
        origin = context.pooler.origin("use_activation")
        choices.set("use_activation", context.pooler.use_activation, origin)


def _choose_step(context: Context, arch: Architecture, columns: int, choices: Choices) -> None:
    tag, origin = context.pooler.step_tag_id, "--pooler-config step_tag_id"
    if tag is None and arch.name.endswith(_PROCESS):
        tag = context.tokenizer.get_vocab().get(_STEP_TAG)
        origin = f"tokenizer: {_STEP_TAG}, the step tag of *{_PROCESS}"
        if tag is None:
            raise pooler_error(
                f"the tokenizer has no {_STEP_TAG}, the step tag of {arch.name}: name the token "
                "that ends a step, as step_tag_id"
            )
    if tag is None:
        origin = "no step_tag_id: every token"
    else:
        _check_vocabulary("step_tag_id", (tag,), context, arch)
    chosen = context.pooler.returned_token_ids or ()
    if arch.trunk is Trunk.CAUSAL_LM:
        choices.set("lm_head", LmHeadSpec(chosen), "--pooler-config returned_token_ids")
        chosen = ()
    elif any(column >= columns for column in chosen):
        raise pooler_error(
            f"returned_token_ids is {list(chosen)}; the head of {arch.name} has {columns} "
            f"column(s): allowed are 0 to {columns - 1}"
        )
    choices.set("step", StepSpec(tag, chosen), origin)


def _refuse_step_fields(context: Context) -> None:
    for name in ("step_tag_id", "returned_token_ids"):
        if name in context.pooler.given:
            asked = context.pooler.token_pooling
            said = f"pooling_type {asked.upper()}" if asked else "the default pooling_type ALL"
            raise pooler_error(f"{name} and {said} contradict each other: say pooling_type STEP")


def _check_vocabulary(
    name: str, ids: tuple[int, ...], context: Context, arch: Architecture
) -> None:
    size = len(context.tokenizer)
    for token in ids:
        if token >= min(size, arch.vocab_size):
            raise pooler_error(
                f"{name} is {token}, which the tokenizer does not have: its ids are 0 to {size - 1}"
                if token >= size
                else f"{name} is {token}, beyond the {arch.vocab_size} tokens of {arch.name}"
            )
