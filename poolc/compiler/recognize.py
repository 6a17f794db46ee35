"""config.json + Sentence Transformers files + overrides -> ModelSpec.

Every choice records its origin. Overrides beat files, files beat defaults. Reads no weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from poolc.compiler import pooler_config, st_files
from poolc.compiler.architecture import Architecture, architecture_name, probe, read_config
from poolc.compiler.choices import Choices
from poolc.compiler.pooler_config import PoolerConfig
from poolc.compiler.st_files import SentenceTransformer
from poolc.compiler.tokenizer import load_tokenizer
from poolc.errors import InvalidOption, UnsupportedModel
from poolc.runtime.matryoshka import KEYS, parse_matryoshka
from poolc.spec import (
    ATTENTION_MASK,
    INPUT_IDS,
    TOKEN_TYPE_IDS,
    Activation,
    CompileOptions,
    Convert,
    Defaults,
    ModelSpec,
    PoolingType,
    Similarity,
    Task,
)

Warn = Callable[[str], None]

# vLLM's table of architecture suffixes (reference: its page of pooling models, "Model Conversion").
_SUFFIXES = (
    ("ForSequenceClassification", Convert.CLASSIFY),
    ("ClassificationModel", Convert.CLASSIFY),
    ("ForRewardModeling", Convert.REWARD),
    ("RewardModel", Convert.REWARD),
)
_TOKEN_LEVEL = ("ForTokenClassification", "ForQuestionAnswering")
_LEGACY_ACTIVATION = "sbert_ce_default_activation_function"
_FALLBACK_LENGTH = 512
_NO_LIMIT = 1_000_000  # transformers writes 1e30 for "the tokenizer knows no limit"


@dataclass(frozen=True, slots=True)
class Recognized:
    """A spec, the class behind it, and the folder (below the source) of its weights."""

    spec: ModelSpec
    arch: Architecture
    transformer: str
    st: SentenceTransformer | None


@dataclass(frozen=True, slots=True)
class _Context:
    folder: Path
    options: CompileOptions
    pooler: PoolerConfig
    st: SentenceTransformer | None
    config: Any
    tokenizer: PreTrainedTokenizerBase
    warn: Warn


def recognize(
    folder: Path, options: CompileOptions, warn: Warn
) -> tuple[Recognized, PreTrainedTokenizerBase]:
    """Say what the model in ``folder`` is.

    Raises UnsupportedModel, RemoteCodeRefused, TokenizerError or InvalidOption.
    """
    if options.runner == "generate":
        raise InvalidOption(
            "runner is 'generate'; poolc compiles pooling models: use auto or pooling",
            param="runner",
        )
    st = st_files.read(folder)
    transformer = folder / st.transformer if st else folder
    config = read_config(transformer, trust_remote_code=options.trust_remote_code)
    tokenizer = load_tokenizer(transformer, st, trust_remote_code=options.trust_remote_code)
    pooler = pooler_config.parse(options.pooler_config)
    context = _Context(folder, options, pooler, st, config, tokenizer, warn)
    choices = Choices()
    kind = _kind(context, choices)
    arch = probe(
        config,
        classifies=kind is Convert.CLASSIFY,
        trust_remote_code=options.trust_remote_code,
    )
    _choose_length(context, arch, choices)
    if kind is Convert.CLASSIFY:
        _choose_classifier(context, choices)
    elif kind is Convert.REWARD:
        choices.set("tasks", (Task.REWARD, Task.ENCODE), choices.origins["tasks"])
        choices.set("pooling", (PoolingType.ALL,), "default of reward models: every token")
    else:
        _choose_embedding(context, arch, choices)
    spec = ModelSpec(
        architecture=arch.name,
        model_type=str(config.model_type),
        hidden_size=arch.hidden_size,
        vocab_size=arch.vocab_size,
        inputs=_inputs(arch, tokenizer),
        pad_token_id=_pad_token(config, tokenizer),
        truncation_side=tokenizer.truncation_side,
        origins=choices.origins,
        **choices.values,
    )
    return Recognized(spec, arch, st.transformer if st else "", st), tokenizer


def _kind(context: _Context, choices: Choices) -> Convert:
    """Choose embed, classify or reward."""
    name, asked = architecture_name(context.config), context.options.convert
    kind, origin = _kind_of_files(context, name)
    if asked not in (Convert.AUTO, Convert.NONE):
        if asked is Convert.CLASSIFY and kind is not Convert.CLASSIFY:
            raise UnsupportedModel(
                f"{name} has no classification head in its weights: --convert classify needs a "
                "*ForSequenceClassification model"
            )
        if asked is Convert.REWARD and kind is Convert.CLASSIFY and context.config.num_labels != 1:
            raise UnsupportedModel(
                f"{name} has {context.config.num_labels} labels; a reward model has one"
            )
        # A sequence-classification reward model stays one: its head is the reward.
        keeps_head = asked is Convert.REWARD and kind is Convert.CLASSIFY
        kind, origin = (kind if keeps_head else asked), f"--convert {asked}"
    native = (context.st and context.st.pooling) or kind is Convert.CLASSIFY
    if asked is Convert.NONE and not native and _is_causal(context.config):
        raise UnsupportedModel(
            f"{name} is no pooling model by itself (--convert none): --convert embed makes it one"
        )
    if kind is Convert.NONE:
        raise UnsupportedModel(
            f"{name} labels tokens, which this poolc does not compile; "
            "--convert embed makes an embedding model of it"
        )
    choices.set("tasks", (), origin)
    return kind


def _kind_of_files(context: _Context, name: str) -> tuple[Convert, str]:
    st = context.st
    if st and st.pooling:
        return Convert.EMBED, "modules.json: a Pooling module"
    if st and st.model_type == "CrossEncoder":
        return Convert.CLASSIFY, "config_sentence_transformers.json: model_type CrossEncoder"
    for suffix, kind in _SUFFIXES:
        if name.endswith(suffix):
            return kind, f"config.json: architectures {name}"
    if name.endswith(_TOKEN_LEVEL):
        return Convert.NONE, f"config.json: architectures {name}"
    return Convert.EMBED, f"config.json: architectures {name}"


def _choose_embedding(context: _Context, arch: Architecture, choices: Choices) -> None:
    choices.set("tasks", (Task.EMBED, Task.SCORE, Task.ENCODE), choices.origins["tasks"])
    _default_pooling(context, arch, choices)
    st, pooler = context.st, context.pooler
    if st and st.pooling:
        choices.set("pooling", st.pooling, st.pooling_file)
        choices.set("normalize", st.normalize, "modules.json")
        if st.dense:
            choices.set("dense", st.dense, "modules.json")
    if pooler.pooling is not None:
        choices.set("pooling", (pooler.pooling,), "--pooler-config pooling_type")
    if pooler.pooling is PoolingType.ALL:
        raise InvalidOption(
            "pooler_config: pooling_type ALL keeps every token, which is not an embedding: "
            "use --convert reward, or encode on any model",
            param="pooler_config",
        )
    # vLLM 0.32 calls an embedding model's normalisation its activation.
    for name, value in (("use_activation", pooler.use_activation), ("normalize", pooler.normalize)):
        if value is not None:
            choices.set("normalize", value, f"--pooler-config {name}")
    dense = choices.get("dense", ())
    width = arch.hidden_size * len(choices.values["pooling"])
    before = "pooling"
    for head in dense:
        if head.in_features != width:
            raise UnsupportedModel(
                f"{head.path}/config.json: in_features is {head.in_features}, "
                f"but {before} gives {width}"
            )
        before, width = head.path, head.out_features
    choices.set("embedding_size", width, "the last head's width")
    _choose_prompts(context, choices)
    _choose_matryoshka(context, choices)


def _default_pooling(context: _Context, arch: Architecture, choices: Choices) -> None:
    if context.options.defaults is Defaults.VLLM:
        # vLLM pools BERT-type classes at CLS and whatever it converts at the last token.
        generates = arch.name.endswith(("ForCausalLM", "LMHeadModel"))
        last = generates or _is_causal(context.config)
        pooling = PoolingType.LAST if last else PoolingType.CLS
        origin = "default of vLLM (--defaults vllm)"
    else:
        # A causal class may be used both ways (is_causal false): its last token is then no summary.
        last = arch.name.endswith("ForCausalLM") and getattr(context.config, "is_causal", True)
        pooling = PoolingType.LAST if last else PoolingType.MEAN
        origin = "default of Sentence Transformers"
    choices.set("pooling", (pooling,), origin)
    choices.set("normalize", True, origin)
    configured = (context.st and context.st.pooling) or context.pooler.pooling
    if not configured:
        context.warn(
            f"{arch.name} configures no pooling: {pooling} of the tokens, normalised ({origin}); "
            "choose with --pooler-config '{\"pooling_type\": ...}'"
        )


def _is_causal(config: Any) -> bool:
    if getattr(config, "is_causal", None) is not None:
        return bool(config.is_causal)
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    # A family with a masked-language-model head is an encoder; vLLM registers those natively.
    return config.model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES


def _choose_prompts(context: _Context, choices: Choices) -> None:
    settings = context.st.settings if context.st else {}
    file = "config_sentence_transformers.json"
    prompts = settings.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(
        isinstance(prompt, str | None) for prompt in prompts.values()
    ):
        raise UnsupportedModel(f"{file}: prompts must map names to strings")
    prompts = {name: prompt or "" for name, prompt in prompts.items()}
    if prompts:
        choices.set("prompts", prompts, f"{file}: prompts")
    default = settings.get("default_prompt_name")
    if default is not None:
        if default not in prompts and default not in ("query", "document"):
            raise UnsupportedModel(
                f"{file}: default_prompt_name {default!r} is not among the prompts"
            )
        choices.set("default_prompt_name", default, f"{file}: default_prompt_name")
    similarity = settings.get("similarity_fn_name")
    if similarity is not None:
        if similarity not in set(Similarity):
            raise UnsupportedModel(f"{file}: similarity_fn_name {similarity!r}")
        choices.set("similarity", Similarity(similarity), f"{file}: similarity_fn_name")


def _choose_matryoshka(context: _Context, choices: Choices) -> None:
    size = choices.values["embedding_size"]
    declared = {key: getattr(context.config, key, None) for key in KEYS}
    matryoshka = parse_matryoshka(declared, size)
    if matryoshka.enabled:
        key = "matryoshka_dimensions" if matryoshka.dimensions else "is_matryoshka"
        overridden = key in context.options.hf_overrides
        origin = "--hf-overrides" if overridden else "config.json"
        choices.set("matryoshka", matryoshka, f"{origin}: {key}")
    cut = context.st.settings.get("truncate_dim") if context.st else None
    if cut is not None:
        file = "config_sentence_transformers.json"
        if not isinstance(cut, int) or not 1 <= cut <= size:
            raise UnsupportedModel(f"{file}: truncate_dim is {cut!r}; this model has 1 to {size}")
        choices.set("default_dimensions", cut, f"{file}: truncate_dim")
    if context.pooler.dimensions is not None:
        if not matryoshka.enabled or context.pooler.dimensions > size:
            raise InvalidOption(
                f"pooler_config: dimensions is {context.pooler.dimensions}, but this model "
                + (f"has {size}" if matryoshka.enabled else "does not declare Matryoshka sizes"),
                param="pooler_config",
            )
        choices.set("default_dimensions", context.pooler.dimensions, "--pooler-config dimensions")


def _choose_classifier(context: _Context, choices: Choices) -> None:
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
    _choose_activation(context, labels, choices)
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


def _choose_activation(context: _Context, labels: tuple[str, ...], choices: Choices) -> None:
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


def _choose_cross_encoder_file(context: _Context, choices: Choices) -> None:
    """Sentence Transformers 5 and 6 write a cross-encoder's activation beside modules.json."""
    st = context.st
    path = st.settings.get("activation_fn") if st and st.model_type == "CrossEncoder" else None
    decided = choices.origins["activation"]
    if path is not None and "label(s)" in decided:
        file = "config_sentence_transformers.json"
        choices.set("activation", st_files.activation(path, file), f"{file}: activation_fn")


def _choose_length(context: _Context, arch: Architecture, choices: Choices) -> None:
    st, limit = context.st, arch.position_limit
    known = int(context.tokenizer.model_max_length)
    if known < _NO_LIMIT:
        choices.set("max_length", known, "tokenizer_config.json: model_max_length")
    if st and st.max_length is not None:
        choices.set("max_length", st.max_length, f"{st.max_length_file}: max_seq_length")
    if limit is not None and choices.get("max_length", limit + 1) > limit:
        choices.set("max_length", limit, f"{arch.name}: positions")
    asked = context.options.max_length
    if asked is not None:
        if asked < 2 or (limit is not None and asked > limit):
            raise InvalidOption(
                f"max_length is {asked}; {arch.name} has 2 to {limit or 'any number of'} positions",
                param="max_length",
            )
        choices.set("max_length", asked, "--max-length")
    if choices.get("max_length") is None:
        choices.set("max_length", _FALLBACK_LENGTH, "default: no file names a limit")
        context.warn(f"no file names a maximum length: {_FALLBACK_LENGTH} tokens (--max-length)")


def _inputs(arch: Architecture, tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    segments = arch.takes_token_types and TOKEN_TYPE_IDS in tokenizer.model_input_names
    return (INPUT_IDS, ATTENTION_MASK, *([TOKEN_TYPE_IDS] if segments else []))


def _pad_token(config: Any, tokenizer: PreTrainedTokenizerBase) -> int:
    for value in (tokenizer.pad_token_id, getattr(config, "pad_token_id", None)):
        if isinstance(value, int):
            return value
    return 0
