"""``--hf-overrides``: which keys of config.json may be given, and whose word a key is.

A key that nobody reads would change nothing, and would look as if it did. Knows no values but those
of keys that vLLM reads and poolc does not.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig

from poolc.compiler.natives import native_config
from poolc.errors import InvalidOption, UnsupportedModel

# Keys that recognition reads and no class of transformers has.
_READ = (
    *("is_matryoshka", "matryoshka_dimensions", "is_causal", "classifier_from_token", "method"),
    *("is_original_qwen3_reranker", "jina_task", "sentence_transformers", "model_type"),
    *("sbert_ce_default_activation_function", "classifier_pooling", "num_labels", "id2label"),
    *("head_dtype", "use_sep_token", "use_pad_token"),
)
# Keys that vLLM reads for some classes; what says the same here.
_ELSEWHERE = {
    "pooling": "choose with --pooler-config pooling_type",
    "embedding_size": "it is read from the last layer",
    "dim": "it is read from the projection's weights",
    "colbert_dim": "it is read from the projection's weights",
}
_NESTED = {"sentence_transformers": ("activation_fn", "version")}
_SEPARATOR = ("use_sep_token", "use_pad_token")  # the second is the older name
_HEAD_DTYPES = ("float32", "model")


def check_overrides(raw: Mapping[str, Any], overrides: Mapping[str, Any]) -> list[str]:
    """Check the keys against config.json and its class; return warnings of what has no effect.

    Raises InvalidOption naming the nearest key.
    """
    merged = {**raw, **overrides}
    cls = CONFIG_MAPPING[merged["model_type"]] if _is_known(merged) else None
    if cls is None and "auto_map" in merged:  # its class is code that nobody has trusted yet
        known: set[str] = set()
    else:
        static = ("max_length",) if raw.get("model_type") == "model2vec" else ()
        known = {*raw, *_READ, *static, *_keys(cls or PreTrainedConfig), *_native_keys(raw)}
        _check_keys(overrides, known | {*_ELSEWHERE}, cls)
    for name, fields in _NESTED.items():
        given = overrides.get(name)
        if isinstance(given, Mapping):
            _check_keys(given, {*(raw.get(name) or {}), *fields}, None, f"{name}.")
    _check_head_dtype(overrides)
    return [
        f"hf_overrides: {name} has no effect here: {hint}"
        for name, hint in _ELSEWHERE.items()
        if name in overrides and name not in known
    ]


def check_separator(overrides: Mapping[str, Any], *, pairs: bool, templated: bool) -> None:
    """Refuse ``use_sep_token`` where pairs are not put together that way.

    Raises InvalidOption: tokenizers put their separator between two texts, templates what they say.
    """
    for name in _SEPARATOR:
        if name not in overrides:
            continue
        value = overrides[name]
        if not pairs:
            raise InvalidOption(
                f"hf_overrides: {name} says how rerankers read two texts, which this model does "
                "not: leave it out",
                param="hf_overrides",
            )
        if value is templated or not isinstance(value, bool):
            does = "the score template joins two texts" if templated else "the tokenizer does"
            raise InvalidOption(
                f"hf_overrides: {name} is {value!r}; {does}; allowed: {str(not templated).lower()}",
                param="hf_overrides",
            )


def attributed(origin: str, overrides: Mapping[str, Any]) -> str:
    """Return the origin of a choice, with the option named where it overrode config.json's key."""
    parts = re.split(r"(?<![\w/])config\.json: ", origin, maxsplit=1)  # not a module's own
    if len(parts) == 1:
        return origin
    head, rest = parts
    key = rest.partition(" ")[0].rstrip(":,)")
    # The number of labels makes their names.
    names = [key, *(["num_labels"] if key == "id2label" else [])]
    name = next((name for name in names if _has(overrides, name)), None)
    return origin if name is None else f"{head}--hf-overrides: {name}{rest.removeprefix(key)}"


def _has(overrides: Mapping[str, Any], dotted: str) -> bool:
    value: Any = overrides
    for part in dotted.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return False
        value = value[part]
    return True


def _is_known(config: Mapping[str, Any]) -> bool:
    return isinstance(config.get("model_type"), str) and config["model_type"] in CONFIG_MAPPING


def _keys(cls: type[PreTrainedConfig]) -> Iterable[str]:
    return {*inspect.signature(cls).parameters, *cls.attribute_map, *cls.sub_configs, *_COMMON}


# What every configuration accepts, under names of its own or of older versions.
_COMMON = (
    *("architectures", "auto_map", "torch_dtype", "rope_scaling", "rope_theta", "rope_parameters"),
    *("attn_implementation", "transformers_version", "use_cache", "tie_word_embeddings"),
    *("output_attentions", "quantization_config"),
)


def _native_keys(raw: Mapping[str, Any]) -> Iterable[str]:
    """Return the keys of an author's layout in transformers' names, which may be given too."""
    try:
        native = native_config(raw)
    except UnsupportedModel:  # said where it is translated, with the overrides in it
        return ()
    if native is None:
        return ()
    return {*native, *(_keys(CONFIG_MAPPING[native["model_type"]]) if _is_known(native) else ())}


def _check_keys(
    given: Mapping[str, Any],
    known: set[str],
    cls: type[PreTrainedConfig] | None,
    where: str = "",
) -> None:
    unknown = next((name for name in given if name not in known), None)
    if unknown is None:
        return
    near = difflib.get_close_matches(unknown, sorted(known), 1)
    readers = "config.json, " + (f"{cls.__name__}, " if cls else "") + "vLLM's list and poolc have"
    hint = f"did you mean {where}{near[0]}?" if near else f"{readers} no such key: leave it out"
    raise InvalidOption(f"hf_overrides: no key {where + unknown!r}; {hint}", param="hf_overrides")


def _check_head_dtype(overrides: Mapping[str, Any]) -> None:
    dtype = overrides.get("head_dtype")
    if dtype is not None and dtype not in _HEAD_DTYPES:
        raise InvalidOption(
            f"hf_overrides: head_dtype is {dtype!r}; heads compute in float32, whatever the "
            f"precision of the rest; allowed: {', '.join(_HEAD_DTYPES)}",
            param="hf_overrides",
        )
