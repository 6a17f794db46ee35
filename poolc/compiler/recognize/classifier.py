"""Sequence classifiers, cross-encoders among them: labels, activation, pairs."""

from __future__ import annotations

from poolc.compiler import st_files
from poolc.compiler.architecture import Architecture, architecture_name
from poolc.compiler.choices import Choices
from poolc.compiler.pooler_fields import pooler_error
from poolc.compiler.recognize.context import Context
from poolc.compiler.recognize.embedding import is_causal
from poolc.compiler.recognize.labels import id2label
from poolc.errors import TokenizerError, UnsupportedModel, nearest
from poolc.spec import Activation, LmHeadSpec, PoolingType, Task, Trunk

_FROM_TOKEN = "config.json: classifier_from_token"
_TWO_WAY, _ROWS = "from_2_way_softmax", "no_post_processing"
_CLASSIFIER_POOLING = {"cls": PoolingType.CLS, "bos": PoolingType.CLS, "mean": PoolingType.MEAN}
_LEGACY_ACTIVATION = "sbert_ce_default_activation_function"


def choose_classifier(context: Context, arch: Architecture, choices: Choices) -> None:
    """Fill in the fields of Kind.CLASSIFIER. Raises InvalidOption or UnsupportedModel."""
    if arch.trunk is Trunk.CAUSAL_LM:
        labels, labels_origin = _choose_lm_head(context, choices), choices.origins["lm_head"]
    else:
        labels, labels_origin = id2label(context), "config.json: id2label"
    tasks = [Task.CLASSIFY, Task.SCORE, Task.ENCODE]
    tasks += [Task.REWARD] if len(labels) == 1 else []
    choices.set("tasks", tuple(tasks), choices.origins["tasks"])
    choices.set("labels", labels, labels_origin)
    cross_encoder = labels_origin if arch.trunk is Trunk.CAUSAL_LM else _cross_encoder(context)
    by_count = f"{len(labels)} label(s) in config.json: id2label"
    choices.set("pairs", bool(cross_encoder) or len(labels) == 1, cross_encoder or by_count)
    choose_activation(context, labels, choices)
    _choose_cross_encoder_file(context, choices)
    for name in ("logit_mean", "logit_sigma", "use_activation"):
        if getattr(context.pooler, name) is not None:
            choices.set(name, getattr(context.pooler, name), context.pooler.origin(name))
    if context.pooler.use_activation is not None:
        origin = context.pooler.origin("use_activation")
        choices.set("reward_activation", context.pooler.use_activation, origin)
    _check_pooling(context, arch)


def _cross_encoder(context: Context) -> str | None:
    """Return what says that Sentence Transformers saved this as a reranker, if anything does."""
    for key in ("sentence_transformers", _LEGACY_ACTIVATION):
        if getattr(context.config, key, None):
            return f"config.json: {key}, of a cross-encoder"
    if context.st and context.st.model_type == "CrossEncoder":
        return "config_sentence_transformers.json: model_type CrossEncoder"
    return None


def _check_pooling(context: Context, arch: Architecture) -> None:
    """Accept a pooling that says what the head does; refuse another. Raises InvalidOption."""
    asked, does = context.pooler.pooling, _pooling_of(context, arch)
    if asked is not None and asked is not does:
        raise pooler_error(
            f"{context.pooler.written['pooling']} is {asked.upper()}; the head of "
            f"{architecture_name(context.config)} pools by itself; allowed: "
            + ("leave it out" if does is None else does.upper())
        )


def _pooling_of(context: Context, arch: Architecture) -> PoolingType | None:
    """Return which token the class reads; None where only its code says."""
    if arch.trunk is Trunk.CAUSAL_LM or is_causal(context.config):
        return PoolingType.LAST
    named = getattr(context.config, "classifier_pooling", "cls")  # ModernBERT, EuroBERT
    return _CLASSIFIER_POOLING.get(str(named))


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
    choices.set("activation", by_count, f"{len(labels)} label(s) in config.json: id2label")
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
