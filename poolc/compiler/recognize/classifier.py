"""Sequence classifiers, cross-encoders among them: labels, activation, pairs."""

from __future__ import annotations

from poolc.compiler import st_files
from poolc.compiler.architecture import Architecture, architecture_name
from poolc.compiler.choices import Choices
from poolc.compiler.recognize.context import Context
from poolc.errors import InvalidOption, TokenizerError, UnsupportedModel, nearest
from poolc.spec import Activation, LmHeadSpec, Task, Trunk

_FROM_TOKEN = "config.json: classifier_from_token"
_TWO_WAY, _ROWS = "from_2_way_softmax", "no_post_processing"
_LEGACY_ACTIVATION = "sbert_ce_default_activation_function"


def choose_classifier(context: Context, arch: Architecture, choices: Choices) -> None:
    """Fill in the fields of Kind.CLASSIFIER. Raises InvalidOption."""
    if arch.trunk is Trunk.CAUSAL_LM:
        labels, labels_origin = _choose_lm_head(context, choices), choices.origins["lm_head"]
    else:
        names = dict(context.config.id2label or {})
        labels = tuple(str(names[i]) for i in sorted(names))
        labels_origin = "config.json: id2label"
    tasks = [Task.CLASSIFY, Task.SCORE, Task.ENCODE]
    tasks += [Task.REWARD] if len(labels) == 1 else []
    choices.set("tasks", tuple(tasks), choices.origins["tasks"])
    choices.set("labels", labels, labels_origin)
    cross_encoder = bool(
        arch.trunk is Trunk.CAUSAL_LM
        or getattr(context.config, "sentence_transformers", None)
        or getattr(context.config, _LEGACY_ACTIVATION, None)
        or (context.st and context.st.model_type == "CrossEncoder")
    )
    choices.set(
        "pairs",
        cross_encoder or len(labels) == 1,
        labels_origin
        if arch.trunk is Trunk.CAUSAL_LM
        else "config.json: a Sentence Transformers cross-encoder"
        if cross_encoder
        else f"{len(labels)} label(s) in config.json",
    )
    choose_activation(context, labels, choices)
    _choose_cross_encoder_file(context, choices)
    for name in ("logit_mean", "logit_sigma"):
        if getattr(context.pooler, name) is not None:
            choices.set(name, getattr(context.pooler, name), f"--pooler-config {name}")
    if context.pooler.use_activation is not None:
        for name in ("use_activation", "reward_activation"):
            choices.set(name, context.pooler.use_activation, "--pooler-config use_activation")
    if context.pooler.pooling is not None or context.pooler.normalize is not None:
        raise InvalidOption(
            "pooler_config: pooling_type and normalize belong to embedding models; the head of "
            f"{architecture_name(context.config)} pools by itself",
            param="pooler_config",
        )


def _choose_lm_head(context: Context, choices: Choices) -> tuple[str, ...]:
    """Choose the rows of the language model's head; return the labels.

    By vLLM's keys of config.json, else as Sentence Transformers' LogitScore says.
    """
    found = context.logit_score
    if found is not None and getattr(context.config, "classifier_from_token", None) is None:
        difference = len(found.token_ids) == 2
        choices.set("lm_head", LmHeadSpec(found.token_ids, difference=difference), found.file)
        return (str(context.tokenizer.convert_ids_to_tokens(found.token_ids[-1])),)
    tokens = context.config.classifier_from_token
    if not isinstance(tokens, list) or not tokens or not all(isinstance(t, str) for t in tokens):
        raise UnsupportedModel(f"{_FROM_TOKEN} is {tokens!r}; allowed: a list of tokens")
    vocabulary = context.tokenizer.get_vocab()
    unknown = [token for token in tokens if token not in vocabulary]
    if unknown:
        raise TokenizerError(
            f"{_FROM_TOKEN}: the tokenizer has no single token {', '.join(map(repr, unknown))}: "
            "name tokens of its vocabulary"
        )
    original = getattr(context.config, "is_original_qwen3_reranker", False)
    method = getattr(context.config, "method", None) or (_TWO_WAY if original else _ROWS)
    if method not in (_TWO_WAY, _ROWS):
        raise UnsupportedModel(
            f"config.json: method is {method!r}; {nearest(str(method), (_TWO_WAY, _ROWS))}"
        )
    if method == _TWO_WAY and len(tokens) != 2:
        raise UnsupportedModel(
            f"{_FROM_TOKEN} has {len(tokens)} tokens; {_TWO_WAY} needs two, false then true"
        )
    ids = tuple(int(vocabulary[token]) for token in tokens)
    choices.set("lm_head", LmHeadSpec(ids, difference=method == _TWO_WAY), _FROM_TOKEN)
    return (tokens[1],) if method == _TWO_WAY else tuple(tokens)


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
