"""Embedding models: pooling, layers behind it, prompts, similarity and Matryoshka sizes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from poolc.compiler.architecture import Architecture
from poolc.compiler.choices import Choices
from poolc.compiler.models import has_masked_lm
from poolc.compiler.pooler_fields import pooler_error
from poolc.compiler.recognize.context import Context
from poolc.compiler.st_files import SentenceTransformer
from poolc.compiler.st_files.transformer import FEATURES
from poolc.errors import InvalidDimensions, InvalidOption, UnsupportedModel
from poolc.runtime.matryoshka import KEYS, check_dimensions, parse_matryoshka
from poolc.spec import (
    LIBRARY_DEFAULT,
    Defaults,
    LayerKind,
    LayerSpec,
    PoolingType,
    Similarity,
    Task,
)


def choose_embedding(context: Context, arch: Architecture, choices: Choices) -> None:
    """Fill in the fields of Kind.EMBEDDING. Raises UnsupportedModel or InvalidOption."""
    choices.set("tasks", (Task.EMBED, Task.SCORE, Task.ENCODE), choices.origins["tasks"])
    _default_pooling(context, arch, choices)
    st, pooler = context.st, context.pooler
    if st and st.pooling:
        choices.set("pooling", st.pooling, st.pooling_file)
        choices.set("normalize", st.normalize, st.file)
        if not st.include_prompt:
            choices.set("include_prompt", False, f"{st.pooling_file}: include_prompt")
        for name in ("token_layers", "layers"):
            if getattr(st, name):
                choices.set(name, getattr(st, name), st.file)
        _check_features(st)
    if pooler.pooling is not None:
        choices.set("pooling", (pooler.pooling,), pooler.origin("pooling"))
    if pooler.pooling is PoolingType.ALL:
        raise InvalidOption(
            "pooler_config: pooling_type ALL keeps every token, which is not an embedding: "
            "use --convert reward, or encode on any model",
            param="pooler_config",
        )
    name, unit = pooler.unit
    if unit is not None:
        choices.set("normalize", unit, pooler.origin(name))
    choices.set("embedding_size", _sizes(st, arch, choices), "the last head's width")
    choose_prompts(context, choices)
    choose_matryoshka(context, choices)


def _check_features(st: SentenceTransformer) -> None:
    """Refuse a Transformer module that gives something else than its last hidden states."""
    file = f"{st.transformer}/{st.bert.file}".removeprefix("/")
    if st.bert.task != FEATURES:
        raise UnsupportedModel(
            f"{file}: transformer_task is {st.bert.task!r}; an embedding model's is {FEATURES!r}"
        )
    if st.bert.output not in (None, ("last_hidden_state",)):
        raise UnsupportedModel(
            f"{file}: modality_config.text.method_output_name is {list(st.bert.output or ())}; "
            "poolc reads last_hidden_state"
        )
    if st.bert.chat:
        raise UnsupportedModel(
            f"{file}: modality_config has message: the library puts texts into the tokenizer's "
            "chat template, which poolc does not compile; a model that was trained without it "
            "lists text only"
        )


def _sizes(st: SentenceTransformer | None, arch: Architecture, choices: Choices) -> int:
    """Fill in the sizes of both chains, and return the vector's. Raises UnsupportedModel."""
    tokens, size = _chain(choices.get("token_layers", ()), arch.hidden_size, "a token")
    if tokens:
        choices.values["token_layers"] = tokens
    pooling = choices.values["pooling"]
    pooled = st.pooled if st else None
    several = f"{st.pooling_file}: {pooled.fields}" if st and pooled and len(pooling) > 1 else ""
    if several and pooled and pooled.token_size not in (None, size):
        raise UnsupportedModel(
            f"{several}, of tokens of {pooled.token_size} numbers (embedding_dimension); but they "
            f"have {size}: keep the one that the model was trained with"
        )
    layers, width = _chain(choices.get("layers", ()), size * len(pooling), several or "pooling")
    if layers:
        choices.values["layers"] = layers
    return width


def _chain(
    layers: tuple[LayerSpec, ...], width: int, before: str
) -> tuple[tuple[LayerSpec, ...], int]:
    """Return modules with their sizes, and the last one's."""
    sized = []
    for layer in layers:
        if layer.kind is LayerKind.NORMALIZE:
            layer = replace(layer, in_features=width, out_features=width)
        if layer.in_features != width:
            key = "dimension" if layer.kind is LayerKind.LAYER_NORM else "in_features"
            raise UnsupportedModel(
                f"{layer.path}/config.json: {key} is {layer.in_features}, "
                f"but {before} gives {width}"
            )
        sized.append(layer)
        before, width = layer.path, layer.out_features
    return tuple(sized), width


def _default_pooling(context: Context, arch: Architecture, choices: Choices) -> None:
    if context.options.defaults is Defaults.VLLM:
        # vLLM pools BERT-type classes at CLS and whatever it converts at the last token.
        generates = arch.name.endswith(("ForCausalLM", "LMHeadModel"))
        last = generates or is_causal(context.config)
        pooling, unit = PoolingType.LAST if last else PoolingType.CLS, True
        origin = "default of vLLM (--defaults vllm)"
    else:
        # A causal class may be used both ways (is_causal false): its last token is then no summary.
        last = arch.name.endswith("ForCausalLM") and getattr(context.config, "is_causal", True)
        pooling, unit = PoolingType.LAST if last else PoolingType.MEAN, False
        origin = LIBRARY_DEFAULT
    choices.set("pooling", (pooling,), origin)
    choices.set("normalize", unit, origin)
    mean = getattr(context.config, "emb_pooler", None) == PoolingType.MEAN
    if mean:  # what ``encode`` of Jina's classes reads
        choices.set("pooling", (PoolingType.MEAN,), "config.json: emb_pooler")
    configured = (context.st and context.st.pooling) or context.pooler.pooling or mean
    if not configured:
        context.warn(
            f"{arch.name} configures no pooling: {pooling} of the tokens, "
            f"{'' if unit else 'not '}normalised ({origin}); choose with --pooler-config "
            '\'{"pooling_type": ..., "normalize": ...}\''
        )


def is_causal(config: Any) -> bool:
    if getattr(config, "is_causal", None) is not None:
        return bool(config.is_causal)
    # A family with a masked-language-model head is an encoder; vLLM registers those natively.
    return not has_masked_lm(config.model_type)


def choose_prompts(context: Context, choices: Choices) -> None:
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


def choose_matryoshka(context: Context, choices: Choices) -> None:
    size = choices.values["embedding_size"]
    declared = {key: getattr(context.config, key, None) for key in KEYS}
    matryoshka = parse_matryoshka(declared, size)
    if matryoshka.enabled:
        key = "matryoshka_dimensions" if matryoshka.dimensions else "is_matryoshka"
        choices.set("matryoshka", matryoshka, f"config.json: {key}")
    cut = context.st.settings.get("truncate_dim") if context.st else None
    if cut is not None:
        file = "config_sentence_transformers.json"
        if not isinstance(cut, int) or not 1 <= cut <= size:
            raise UnsupportedModel(f"{file}: truncate_dim is {cut!r}; this model has 1 to {size}")
        choices.set("default_dimensions", cut, f"{file}: truncate_dim")
    asked = context.pooler.dimensions
    if asked is not None:
        try:
            check_dimensions(matryoshka, size, asked)
        except InvalidDimensions as error:
            raise pooler_error(str(error)) from None
        choices.set("default_dimensions", asked, "--pooler-config dimensions")
