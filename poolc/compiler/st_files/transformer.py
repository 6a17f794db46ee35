"""The Transformer module's configuration: sentence_bert_config.json and its older names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from poolc.compiler.json_files import read_json
from poolc.errors import UnsupportedModel

# The name carries the family in old saves.
_FILES = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)
FEATURES = "feature-extraction"
# What processing_kwargs may say about texts; the rest changes which tokens a text has.
_PROCESSING = frozenset({"max_length", "padding", "truncation", "return_tensors"})
# The library's loading settings, with the older name of each, which wins where both are written.
_LOADING = {
    "model_kwargs": "model_args",
    "processor_kwargs": "tokenizer_args",
    "config_kwargs": "config_args",
}
# Where a model is downloaded from, and whether its code runs: the library overwrites these.
_PLACES = frozenset(
    {"subfolder", "token", "cache_dir", "revision", "local_files_only", "trust_remote_code"}
)
# What model_kwargs may say: none of it changes a number of the last hidden states in fp32.
_NUMBERLESS = frozenset(
    {
        *("dtype", "torch_dtype", "attn_implementation", "device_map", "max_memory"),
        *("low_cpu_mem_usage", "use_safetensors", "weights_only", "force_download", "proxies"),
        *("code_revision", "offload_folder", "offload_state_dict", "add_pooling_layer"),
        *("output_loading_info", "provider", "export"),  # the last two: of other backends
    }
)
_NO_LIMIT = 1_000_000  # transformers writes 1e30 for "no limit"


@dataclass(frozen=True, slots=True)
class TransformerConfig:
    """What the file says; ``task`` is which Auto class the library loads (version 6)."""

    file: str = _FILES[0]
    max_length: int | None = None
    length_key: str = "max_seq_length"  # that says max_length
    lower_case: bool = False
    task: str = FEATURES
    output: tuple[str, ...] | None = None  # of the model, that the next module gets; None: usual
    chat: bool = False  # whether texts go through the tokenizer's chat template
    settings: Mapping[str, Any] = field(default_factory=dict)  # the whole file
    # What the library hands to the Auto classes' from_pretrained.
    model_kwargs: Mapping[str, Any] = field(default_factory=dict)  # nothing that changes numbers
    processor_kwargs: Mapping[str, Any] = field(default_factory=dict)
    config_kwargs: Mapping[str, Any] = field(default_factory=dict)


def read_transformer(folder: Path, path: str) -> TransformerConfig:
    """Read the module in ``folder``/``path``. Raises UnsupportedModel that names file and key."""
    for name in _FILES:
        config = read_json(folder / path / name)
        if config:
            return _parse(config, name)
    return TransformerConfig()


def _parse(config: dict[str, Any], file: str) -> TransformerConfig:
    modalities = config.get("modality_config")
    text = modalities.get("text") if isinstance(modalities, dict) else None
    output = text.get("method_output_name") if isinstance(text, dict) else None
    if isinstance(modalities, dict) and not isinstance(text, dict):
        raise UnsupportedModel(f"{file}: modality_config has no text: this model reads none")
    if isinstance(text, dict) and text.get("method") != "forward":
        raise UnsupportedModel(
            f"{file}: modality_config.text.method is {text.get('method')!r}; poolc calls forward"
        )
    if config.get("tokenizer_name_or_path") is not None:
        raise UnsupportedModel(
            f"{file}: tokenizer_name_or_path is {config['tokenizer_name_or_path']!r}; poolc reads "
            "the tokenizer in the folder: remove the key, and name another with --tokenizer"
        )
    loading = {name: _loading(config, name, file) for name in _LOADING}
    _check_model_kwargs(loading["model_kwargs"], file)
    key, length = _longest(config, loading["processor_kwargs"], file)
    return TransformerConfig(
        file=file,
        max_length=length,
        length_key=key,
        **loading,
        lower_case=bool(config.get("do_lower_case", False)),
        task=str(config.get("transformer_task") or FEATURES),
        output=None if output is None else tuple([output] if isinstance(output, str) else output),
        chat=isinstance(modalities, dict) and "message" in modalities,
        settings=config,
    )


def _loading(config: dict[str, Any], name: str, file: str) -> dict[str, Any]:
    """Return one of the file's loading settings, without what names the place of the files."""
    key = _LOADING[name] if _LOADING[name] in config else name
    given = config.get(key)
    if not isinstance(given, dict | None):
        raise UnsupportedModel(f"{file}: {key} is {given!r}; it must be an object")
    return {option: value for option, value in (given or {}).items() if option not in _PLACES}


def _check_model_kwargs(given: Mapping[str, Any], file: str) -> None:
    unknown = sorted(set(given) - _NUMBERLESS)
    if unknown:
        raise UnsupportedModel(
            f"{file}: model_kwargs.{unknown[0]} is {given[unknown[0]]!r}, which poolc does not "
            f"compile; known, because they change no numbers: {', '.join(sorted(_NUMBERLESS))}"
        )


def _longest(
    config: dict[str, Any], processor: Mapping[str, Any], file: str
) -> tuple[str, int | None]:
    """Return the key that says the maximum length, and the length.

    The library gives max_seq_length to a tokenizer that is not told model_max_length, and calls
    the tokenizer with processing_kwargs.
    """
    if (called := _processing(config.get("processing_kwargs"), file)) is not None:
        return "processing_kwargs", called
    key = "model_max_length"
    if key not in processor:
        return "max_seq_length", _length(config.get("max_seq_length"), file, "max_seq_length")
    value = processor[key]
    unlimited = isinstance(value, int | float) and value >= _NO_LIMIT
    where = f"processor_kwargs.{key}"
    return where, None if unlimited else _length(value, file, where)


def _processing(given: Any, file: str) -> int | None:
    """Return the length that processing_kwargs sets, the only thing there that poolc follows."""
    length = None
    for group in ("text", "common"):  # the library lets the last one win
        options = given.get(group) or {} if isinstance(given, dict) else {}
        for key, value in options.items():
            if key not in _PROCESSING:
                raise UnsupportedModel(
                    f"{file}: processing_kwargs.{group}.{key} is {value!r}, which poolc does not "
                    "compile; known: max_length"
                )
        where = f"processing_kwargs.{group}.max_length"
        length = _length(options.get("max_length"), file, where) or length
    return length


def _length(value: Any, file: str, key: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UnsupportedModel(f"{file}: {key} is {value!r}; it must be a positive integer")
    return value
