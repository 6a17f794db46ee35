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


@dataclass(frozen=True, slots=True)
class TransformerConfig:
    """What the file says; ``task`` is which Auto class the library loads (version 6)."""

    file: str = _FILES[0]
    max_length: int | None = None
    lower_case: bool = False
    task: str = FEATURES
    output: tuple[str, ...] | None = None  # of the model, that the next module gets; None: usual
    chat: bool = False  # whether texts go through the tokenizer's chat template
    settings: Mapping[str, Any] = field(default_factory=dict)  # the whole file


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
    length = _length(config.get("max_seq_length"), file, "max_seq_length")
    return TransformerConfig(
        file=file,
        max_length=_processing(config.get("processing_kwargs"), file) or length,
        lower_case=bool(config.get("do_lower_case", False)),
        task=str(config.get("transformer_task") or FEATURES),
        output=None if output is None else tuple([output] if isinstance(output, str) else output),
        chat=isinstance(modalities, dict) and "message" in modalities,
        settings=config,
    )


def _processing(given: Any, file: str) -> int | None:
    """Return the length that processing_kwargs sets, the only thing there that poolc follows."""
    length = None
    for group in ("common", "text"):
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
