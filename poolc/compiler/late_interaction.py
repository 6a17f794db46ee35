"""What a multi-vector folder says of itself: layouts of Sentence Transformers, PyLate and Stanford.

Follows ``MultiVectorEncoder`` of Sentence Transformers 6, which loads all three. Knows files only:
tokens and limits are for recognition.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from poolc.compiler.json_files import read_json
from poolc.compiler.linear_files import linear_layer
from poolc.compiler.st_files import SentenceTransformer
from poolc.compiler.st_files.chain import MULTI_VECTOR_MASK
from poolc.compiler.st_files.layers import TOKENS, read_layer
from poolc.compiler.st_files.modules import Module
from poolc.errors import UnsupportedModel
from poolc.spec import LayerSpec

_ST_FILE = "config_sentence_transformers.json"
_STANFORD, _PYLATES = "defaults of Stanford's ColBERT", "default of PyLate"
_METADATA = "artifact.metadata"
_WEIGHTS = "model.safetensors"
_DEFAULT_LENGTH = 32  # of expanded queries, in ColBERT's papers and both libraries
_PUNCTUATION = tuple(string.punctuation)
_ATTENDS = ("attend_to_expansion_tokens", "attend_to_mask_tokens")
_SIDES = ("query", "document")
# Keys that only PyLate writes: where one is there, queries are expanded unless it says otherwise.
_PYLATE = (
    *("query_length", "document_length", "do_query_expansion", "attend_to_expansion_tokens"),
    *("attend_to_mask_tokens", "query_prefix", "document_prefix", "skiplist_words"),
)


@dataclass(frozen=True, slots=True)
class Expansion:
    """Queries are padded to ``length`` tokens; ``fixed``: and cut to as many."""

    length: int
    fixed: bool = True
    attend: bool = False
    token: str | None = None  # None: the mask token


@dataclass(frozen=True, slots=True)
class LateInteraction:
    """The files' settings; None or empty where they say nothing."""

    file: str
    layers: tuple[LayerSpec, ...] = ()
    normalize: bool = False
    masked: bool = False  # whether a mask decides which tokens have vectors
    expansion: Expansion | None = None
    query_length: int | None = None
    document_length: int | None = None
    skiplist: tuple[str, ...] = ()
    skiplist_sides: tuple[str, ...] = ("document",)
    kept_ids: tuple[int, ...] = ()
    prompts: Mapping[str, str | None] = field(default_factory=dict)
    markers: tuple[str, ...] = ()  # prompts that the tokenizer must keep in one piece
    files: Mapping[str, str] = field(default_factory=dict)  # file and key by the settings above


def read_late_interaction(folder: Path, st: SentenceTransformer | None) -> LateInteraction:
    """Read the folder's layout, whichever it is.

    Raises UnsupportedModel that names the file and the module or key.
    """
    return _read_stanford(folder) if st is None else _read_modules(folder, st)


def _read_stanford(folder: Path) -> LateInteraction:
    metadata = read_json(folder / _METADATA)
    query = (metadata.get("query_token_id") or "[unused0]") + " "
    document = (metadata.get("doc_token_id") or "[unused1]") + " "
    expansion = {
        "strategy": "fixed",
        "attend": bool(metadata.get("attend_to_mask_tokens")),
        "length": metadata.get("query_maxlen") or _DEFAULT_LENGTH,
    }
    keys = {
        "expansion": "query_maxlen",
        "attend": "attend_to_mask_tokens",
        "document_length": "doc_maxlen",
        "skiplist": "mask_punctuation",
        "markers": "query_token_id",
    }
    files = {
        name: f"{_METADATA}: {key}" if key in metadata else _STANFORD for name, key in keys.items()
    }
    return LateInteraction(
        files={**files, "layers": _WEIGHTS, "normalize": _STANFORD},
        file=_METADATA if metadata else _STANFORD,
        layers=(linear_layer(folder, _WEIGHTS, "HF_ColBERT"),),
        normalize=True,
        masked=True,
        expansion=_expansion(expansion, _METADATA),
        document_length=_length(metadata.get("doc_maxlen"), f"{_METADATA}: doc_maxlen"),
        skiplist=_PUNCTUATION if metadata.get("mask_punctuation", True) else (),
        prompts={"query": query, "document": document},
        markers=(query, document),
    )


def _read_modules(folder: Path, st: SentenceTransformer) -> LateInteraction:
    settings = st.settings
    prefixes = {
        side: settings.get(f"{side}_prefix") or ""
        for side in _SIDES
        if f"{side}_prefix" in settings
    }
    prompts = dict(settings.get("prompts") or {})
    for side, prefix in prefixes.items():
        prompts[side] = prefix + (prompts.get(side) or "").removeprefix(prefix)
    knobs = _pylate_knobs(settings) | {
        key: st.transformer_settings[key]
        for key in ("query_length", "document_length", "query_expansion")
        if key in st.transformer_settings
    }
    where = st.max_length_file
    found = LateInteraction(
        file="modules.json",
        expansion=_expansion(knobs.get("query_expansion"), where),
        query_length=_length(knobs.get("query_length"), f"{where}: query_length"),
        document_length=_length(knobs.get("document_length"), f"{where}: document_length"),
        prompts=prompts,
        markers=tuple(prefixes.values()),
        files=_files(st, prefixes),
    )
    for module in st.heads:
        found = _with_module(found, module, folder)
    # PyLate lists Transformer and Dense alone: it masks and normalises by itself.
    if st.model_type == "ColBERT" or (st.model_type == "SentenceTransformer" and prefixes):
        words = settings.get("skiplist_words")
        words = _words(words, f"{_ST_FILE}: skiplist_words")
        skiplist = _PUNCTUATION if words is None else words
        named = _PYLATES if words is None else f"{_ST_FILE}: skiplist_words"
        files = {**found.files, "skiplist": named, "normalize": _PYLATES}
        found = replace(found, normalize=True, masked=True, skiplist=skiplist, files=files)
    if found.expansion is not None and not found.masked:
        raise UnsupportedModel(
            f"{where}: query_expansion needs a {MULTI_VECTOR_MASK} module, which modules.json "
            "does not have"
        )
    return found


def _files(st: SentenceTransformer, prefixes: Mapping[str, str]) -> dict[str, str]:
    """Return where the settings beside the modules come from; the Transformer's file comes last."""
    files = {
        key: f"{_ST_FILE}: {key}"
        for key in ("query_length", "document_length")
        if st.settings.get(key)
    }
    keys = ("query_expansion", "do_query_expansion", "query_length")
    named = next((key for key in keys if key in st.settings), None)
    files["expansion"] = f"{_ST_FILE}: {named}" if named else _PYLATES
    for key in ("query_length", "document_length", "query_expansion"):
        if key in st.transformer_settings:
            files[key.replace("query_expansion", "expansion")] = f"{st.max_length_file}: {key}"
    whole = named == keys[0] or keys[0] in st.transformer_settings  # one object says all of it
    attend = (key for key in _ATTENDS if key in st.settings and not whole)
    files["attend"] = next((f"{_ST_FILE}: {key}" for key in attend), files["expansion"])
    written = " and ".join(f"{side}_prefix" for side in prefixes) or "prompts"
    return {**files, "markers": f"{_ST_FILE}: {written}"}


def _with_module(found: LateInteraction, module: Module, folder: Path) -> LateInteraction:
    if module.kind == "Dense" and not found.normalize:
        layer = read_layer(folder, module, TOKENS, unnamed=TOKENS)
        files = {"layers": "modules.json: Dense", **found.files}
        return replace(found, layers=(*found.layers, layer), files=files)
    file = f"{module.path}/config.json"
    config = read_json(folder / module.path / "config.json")
    if module.kind == "Normalize":
        of_tokens = config.get("module_input_name") == "token_embeddings"
        files = {**found.files, "normalize": f"{file}: module_input_name"}
        return replace(found, normalize=found.normalize or of_tokens, files=files)
    if module.kind == MULTI_VECTOR_MASK:
        sides = config.get("skiplist_tasks") or ["document"]
        return replace(
            found,
            files={**found.files, "skiplist": f"{file}: skiplist_words"},
            masked=True,
            skiplist=_words(config.get("skiplist_words"), f"{file}: skiplist_words") or (),
            skiplist_sides=(sides,) if isinstance(sides, str) else tuple(sides),
            kept_ids=_ids(config.get("keep_only_token_ids"), f"{file}: keep_only_token_ids"),
        )
    raise UnsupportedModel(
        f"modules.json has a {module.kind} module"
        f"{' behind Normalize' if module.kind == 'Dense' else ''}; of multi-vector models poolc "
        f"reads Transformer, Dense..., {MULTI_VECTOR_MASK} and Normalize"
    )


def _pylate_knobs(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what PyLate keeps at the top of its settings, as the Transformer's of version 6."""
    knobs = {
        key: settings[key]
        for key in ("query_length", "document_length")
        if settings.get(key) is not None
    }
    if "query_expansion" in settings:
        return {**knobs, "query_expansion": settings["query_expansion"]}
    if not any(key in settings for key in _PYLATE):
        return knobs
    if settings.get("do_query_expansion") is False:
        return {**knobs, "query_expansion": None}
    attend = settings.get("attend_to_expansion_tokens", settings.get("attend_to_mask_tokens"))
    length = knobs.pop("query_length", None) or _DEFAULT_LENGTH
    knobs["query_expansion"] = {"strategy": "fixed", "attend": bool(attend), "length": length}
    return knobs


def _expansion(value: Any, where: str) -> Expansion | None:
    if value is None:
        return None
    name = f"{where}: query_expansion"
    if not isinstance(value, dict):
        raise UnsupportedModel(f"{name} is {value!r}; it must be an object or null")
    for key in value:
        if key not in ("strategy", "attend", "token", "length"):
            raise UnsupportedModel(f"{name} has {key!r}; known: strategy, attend, token, length")
    strategy, token, attend = value.get("strategy"), value.get("token"), value.get("attend", False)
    if strategy not in ("fixed", "min"):
        raise UnsupportedModel(f"{name}: strategy is {strategy!r}; known: fixed, min")
    if not isinstance(token, str | None) or not isinstance(attend, bool):
        raise UnsupportedModel(f"{name}: token must be a string, attend true or false")
    length = _length(value.get("length"), f"{name}: length")
    if length is None:
        raise UnsupportedModel(f"{name}: length is missing, the number of tokens to expand to")
    return Expansion(length, strategy == "fixed", attend, token)


def _length(value: Any, where: str) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    raise UnsupportedModel(f"{where} is {value!r}; it must be a positive integer")


def _words(value: Any, where: str) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise UnsupportedModel(f"{where} is {value!r}; it must be a list of tokens")
    return tuple(value)


def _ids(value: Any, where: str) -> tuple[int, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(i, int) for i in value):
        raise UnsupportedModel(f"{where} is {value!r}; it must be a list of token ids")
    return tuple(value)
