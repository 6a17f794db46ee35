"""Origins of what nobody chose: each kind's fields that have a value all the same."""

from __future__ import annotations

from collections.abc import Mapping

from poolc.compiler.adapters import DEFAULT_TASK, TASK_KEY
from poolc.compiler.choices import Choices
from poolc.compiler.overrides import attributed
from poolc.compiler.recognize.context import Context
from poolc.spec import Kind

_COUNTED = "default of Sentence Transformers: pooling counts prompts"
_EMBEDDING = {
    "include_prompt": _COUNTED,
    "similarity": "default of Sentence Transformers: cosine",
    "matryoshka": "default: config.json declares no sizes",
    "chunk": "default: a text that is too long is an error",
    "default_prompt_name": "default: no prompt",
}
_ACTIVATED = {"use_activation": "default of classifiers: probabilities"}
_TEMPLATE = {
    "template": "default: the tokenizer puts two texts together",
    "logit_mean": "default: logits as they are",
}
_DEFAULTS: Mapping[Kind, Mapping[str, str]] = {
    Kind.EMBEDDING: _EMBEDDING,
    Kind.HYBRID: _EMBEDDING,
    Kind.CLASSIFIER: {**_ACTIVATED, **_TEMPLATE},
    Kind.TOKEN_CLASSIFIER: _ACTIVATED,
    Kind.REWARD: {},
    Kind.SPARSE: {"default_prompt_name": "default: no prompt"},
    Kind.MULTI_VECTOR: {"matryoshka": _EMBEDDING["matryoshka"]},
}


def name_defaults(context: Context, choices: Choices) -> None:
    """Give every field that has a default and no origin one. Changes no value."""
    found = dict(_DEFAULTS[choices.values["kind"]])
    found["truncation_side"] = _truncation_side(context)
    if choices.get("template") is not None:
        found["template_special_tokens"] = "default: prompts get the tokenizer's special tokens"
    task = getattr(context.config, TASK_KEY, None)  # no field: its weights are the trunk's
    if task is not None:
        said = task != DEFAULT_TASK or TASK_KEY in choices.overrides
        origin = f"config.json: {TASK_KEY} {task}" if said else f"default of Jina v3: {task}"
        found[TASK_KEY] = attributed(origin, choices.overrides)
    for name, origin in found.items():
        choices.origins.setdefault(name, origin)


def _truncation_side(context: Context) -> str:
    if context.st and "truncation_side" in context.st.bert.processor_kwargs:
        return f"{context.st.bert.file}: processor_kwargs.truncation_side"
    said = "truncation_side" in context.tokenizer.init_kwargs
    return "tokenizer_config.json: truncation_side" if said else "default of transformers: right"
