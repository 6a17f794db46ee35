"""What a ``--pooler-config`` says beside the choices of one kind of model: which of its fields the
kind has, the active task, and chunking of long texts.
"""

from __future__ import annotations

from collections.abc import Mapping

from poolc.compiler.choices import Choices
from poolc.compiler.pooler_fields import TASKS, pooler_error
from poolc.compiler.recognize.context import Context
from poolc.spec import Kind, PoolingType, Task

_ANY = frozenset({"task", "tok_pooling_type", "use_activation", "enable_flash_late_interaction"})
_POOLED = frozenset({"pooling_type", "seq_pooling_type", "normalize", "dimensions"})
_CHUNKED = frozenset({"enable_chunked_processing", "max_embed_len"})
_LABELS = frozenset({"softmax", "activation"})
_AFFINE = frozenset({"logit_mean", "logit_sigma", "logit_bias"})
_STEPS = frozenset({"step_tag_id", "returned_token_ids"})
_ALLOWED: Mapping[Kind, frozenset[str]] = {
    Kind.EMBEDDING: _ANY | _POOLED | _CHUNKED,
    Kind.CLASSIFIER: _ANY | _LABELS | _AFFINE | {"pooling_type", "seq_pooling_type"},
    Kind.TOKEN_CLASSIFIER: _ANY | _LABELS | {"pooling_type"},
    Kind.REWARD: _ANY | _LABELS | _STEPS | {"pooling_type"},
    Kind.SPARSE: _ANY,
    Kind.MULTI_VECTOR: _ANY | {"pooling_type", "normalize", "dimensions"},
    Kind.HYBRID: _ANY | _POOLED | _CHUNKED,
}
_BELONGS = (
    (_POOLED, "embedding models"),
    (_CHUNKED, "embedding models"),
    (_LABELS, "models with labels"),
    (_AFFINE, "classifiers of whole texts"),
    (_STEPS, "step pooling (pooling_type STEP) of reward models and language models"),
)
# What vLLM's names of tasks are here; the first that a model has counts.
TASK_NAMES: Mapping[str, tuple[Task, ...]] = {
    "embed": (Task.EMBED, Task.EMBED_SPARSE),  # vLLM embeds SPLADE as a vector of the vocabulary
    "classify": (Task.CLASSIFY,),
    "score": (Task.SCORE,),
    "reward": (Task.REWARD,),
    "encode": (Task.ENCODE, Task.REWARD),
    "token_embed": (Task.EMBED_TOKENS, Task.ENCODE),
    # BGE-M3's: the sparse weight of each token.
    "token_classify": (Task.CLASSIFY_TOKENS, Task.REWARD, Task.EMBED_HYBRID),
    "embed&token_classify": (Task.EMBED_HYBRID,),
}


def choose_pooler(context: Context, choices: Choices) -> None:
    """Refuse fields of other kinds, check the task, set chunking. Raises InvalidOption."""
    pooler, kind = context.pooler, choices.values["kind"]
    for name in sorted(pooler.given - _ALLOWED[kind]):
        owner = next(owner for fields, owner in _BELONGS if name in fields)
        raise pooler_error(
            f"{name} belongs to {owner}; this is a model of kind {kind}, whose fields are: "
            f"{', '.join(sorted(_ALLOWED[kind]))}"
        )
    _check_pooling(context, kind)
    if "enable_flash_late_interaction" in pooler.given:
        context.warn(
            "pooler_config: enable_flash_late_interaction has no effect: it chooses a GPU kernel"
        )
    _check_task(context, choices)
    _choose_chunking(context, choices)


def _check_pooling(context: Context, kind: Kind) -> None:
    """Refuse a pooling, and a switch, that the head of this kind does not have."""
    pooler = context.pooler
    if pooler.token_pooling == "step" and kind is not Kind.REWARD:
        raise pooler_error(
            f"{pooler.written['token_pooling']} is STEP, which selects rewards; this is a model of "
            f"kind {kind}, which knows: ALL"
        )
    keeps_tokens = kind in (Kind.TOKEN_CLASSIFIER, Kind.REWARD, Kind.MULTI_VECTOR)
    if keeps_tokens and pooler.pooling not in (None, PoolingType.ALL):
        allowed = "ALL, STEP" if kind is Kind.REWARD else "ALL"
        raise pooler_error(
            f"{pooler.written['pooling']} is {pooler.pooling.upper()}; a model of kind {kind} "
            f"answers with a row a token; allowed: {allowed}"
        )
    if kind is Kind.SPARSE and pooler.use_activation is False:
        raise pooler_error(
            "use_activation is false; the weights of a model of kind sparse are activations (log1p "
            "of relu); allowed: true"
        )


def _check_task(context: Context, choices: Choices) -> None:
    asked, tasks = context.pooler.task, choices.values["tasks"]
    if asked is None:
        return
    if asked == "token_classify" and Task.CLASSIFY in tasks:  # a sequence reward is no token task
        found = None
    else:
        found = next((task for task in TASK_NAMES[asked] if task in tasks), None)
    if found is None:
        has = [name for name in TASKS if set(TASK_NAMES[name]) & set(tasks)]
        raise pooler_error(
            f"task is {asked!r}, which this model does not support (it has: {', '.join(has)}); "
            "--convert makes another kind of model of it"
        )
    origin = f"{choices.origins['tasks']}; --pooler-config task {asked}"
    choices.set("tasks", tasks, origin)


def _choose_chunking(context: Context, choices: Choices) -> None:
    pooler = context.pooler
    if pooler.chunk is not None:
        choices.set("chunk", pooler.chunk, "--pooler-config enable_chunked_processing")
    longest = pooler.max_embed_length
    if longest is None:
        return
    if not pooler.chunk:
        raise pooler_error(
            f"max_embed_len is {longest} without enable_chunked_processing true: longer texts than "
            f"the model's {choices.values['max_length']} tokens are only taken in chunks; give "
            "both, or use --max-length"
        )
    choices.set("max_embed_length", longest, "--pooler-config max_embed_len")
