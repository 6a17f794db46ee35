"""Sequence classifiers, cross-encoders among them: labels, activation, pairs."""

from __future__ import annotations

from poolc.compiler import st_files
from poolc.compiler.architecture import Architecture, architecture_name
from poolc.compiler.choices import Choices
from poolc.compiler.recognize.context import Context
from poolc.errors import InvalidOption
from poolc.spec import Activation, Task

_LEGACY_ACTIVATION = "sbert_ce_default_activation_function"


def choose_classifier(context: Context, arch: Architecture, choices: Choices) -> None:
    """Fill in the fields of Kind.CLASSIFIER. Raises InvalidOption."""
    names = dict(context.config.id2label or {})
    labels = tuple(str(names[i]) for i in sorted(names))
    tasks = [Task.CLASSIFY, Task.SCORE, Task.ENCODE]
    tasks += [Task.REWARD] if len(labels) == 1 else []
    choices.set("tasks", tuple(tasks), choices.origins["tasks"])
    choices.set("labels", labels, "config.json: id2label")
    cross_encoder = bool(
        getattr(context.config, "sentence_transformers", None)
        or getattr(context.config, _LEGACY_ACTIVATION, None)
        or (context.st and context.st.model_type == "CrossEncoder")
    )
    choices.set(
        "pairs",
        cross_encoder or len(labels) == 1,
        "config.json: a Sentence Transformers cross-encoder"
        if cross_encoder
        else f"{len(labels)} label(s) in config.json",
    )
    choose_activation(context, labels, choices)
    _choose_cross_encoder_file(context, choices)
    if context.pooler.use_activation is not None:
        choices.set(
            "use_activation", context.pooler.use_activation, "--pooler-config use_activation"
        )
    if context.pooler.pooling is not None or context.pooler.normalize is not None:
        raise InvalidOption(
            "pooler_config: pooling_type and normalize belong to embedding models; the head of "
            f"{architecture_name(context.config)} pools by itself",
            param="pooler_config",
        )


def choose_activation(context: Context, labels: tuple[str, ...], choices: Choices) -> None:
    """Rising precedence: number of labels, activation_fn, problem_type, --pooler-config."""
    by_count = Activation.SIGMOID if len(labels) == 1 else Activation.SOFTMAX
    choices.set("activation", by_count, f"{len(labels)} label(s) in config.json")
    settings = getattr(context.config, "sentence_transformers", None)
    current = settings.get("activation_fn") if isinstance(settings, dict) else None
    # Sentence Transformers before version 4 wrote another key.
    legacy = getattr(context.config, _LEGACY_ACTIVATION, None)
    for path, key in (
        (legacy, _LEGACY_ACTIVATION),
        (current, "sentence_transformers.activation_fn"),
    ):
        if path is not None:
            origin = f"config.json: {key}"
            choices.set("activation", st_files.activation(path, origin), origin)
    problem = getattr(context.config, "problem_type", None)
    by_problem = {
        "regression": Activation.IDENTITY,
        "single_label_classification": by_count,
        "multi_label_classification": Activation.SIGMOID,
    }
    if problem in by_problem:
        choices.set("activation", by_problem[problem], f"config.json: problem_type {problem}")
    if context.pooler.activation is not None:
        choices.set("activation", context.pooler.activation, "--pooler-config activation")


def _choose_cross_encoder_file(context: Context, choices: Choices) -> None:
    """Sentence Transformers 5 and 6 write a cross-encoder's activation beside modules.json."""
    st = context.st
    path = st.settings.get("activation_fn") if st and st.model_type == "CrossEncoder" else None
    decided = choices.origins["activation"]
    if path is not None and "label(s)" in decided:
        file = "config_sentence_transformers.json"
        choices.set("activation", st_files.activation(path, file), f"{file}: activation_fn")
