"""Sentence Transformers' rerankers made from a language model: Transformer and LogitScore.

Reads which tokens are the answers, and the chat template that makes a prompt of a pair. Knows
nothing about weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from poolc.compiler.json_files import read_json
from poolc.compiler.st_files import SentenceTransformer
from poolc.errors import UnsupportedModel
from poolc.runtime.templates import with_values

LOGIT_SCORE = "LogitScore"
_CHAT_TEMPLATE = "processing_kwargs.chat_template"
_TRANSFORMER_FILE = "sentence_bert_config.json"
# What Sentence Transformers does with a template, and not what the template is given.
_OF_TOKENIZING = ("restore_suffix", "padding", "truncation", "max_length", "return_tensors")


@dataclass(frozen=True, slots=True)
class LogitScore:
    """The answers' tokens, in the order of an LmHeadSpec, and where they are named."""

    token_ids: tuple[int, ...]
    file: str
    values: Mapping[str, Any]  # what the chat template is given
    takes_messages: bool  # whether the chat template is used


def find_logit_score(folder: Path, st: SentenceTransformer | None) -> LogitScore | None:
    """Read the LogitScore module of a folder; None where it has none. Raises UnsupportedModel."""
    if st is None or st.is_static:  # which may have no modules.json
        return None
    modules = [(str(e["type"]).rpartition(".")[2], str(e["path"])) for e in _entries(folder)]
    kinds = [kind for kind, _ in modules]
    if LOGIT_SCORE not in kinds:
        return None
    if kinds != ["Transformer", LOGIT_SCORE]:
        raise UnsupportedModel(
            f"modules.json has {', '.join(kinds)}; poolc reads Transformer, LogitScore"
        )
    settings = read_json(folder / st.transformer / _TRANSFORMER_FILE)
    _check_transformer(settings)
    file = f"{modules[1][1]}/config.json"
    modalities = settings.get("modality_config") or {"message": {}}
    return LogitScore(
        _token_ids(read_json(folder / file), file),
        file,
        _template_values(settings),
        "message" in modalities,
    )


def chat_template(found: LogitScore, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return the template that makes a prompt of a pair; None where there is none.

    Raises UnsupportedModel.
    """
    template = tokenizer.chat_template
    if template is None or not found.takes_messages:
        return None
    if not isinstance(template, str):
        raise UnsupportedModel(
            f"the tokenizer has several chat templates ({', '.join(template)}); poolc reads one: "
            "pass the one that shows a query and a document (--score-template)"
        )
    # transformers gives these to every template.
    return with_values(template, {"tools": None, "documents": None, **found.values})


def _entries(folder: Path) -> list[dict[str, Any]]:
    import json

    entries: list[dict[str, Any]] = json.loads((folder / "modules.json").read_text("utf-8"))
    return entries


def _check_transformer(settings: Mapping[str, Any]) -> None:
    task = settings.get("transformer_task", "text-generation")
    if task != "text-generation":
        raise UnsupportedModel(
            f"{_TRANSFORMER_FILE}: transformer_task is {task!r}; LogitScore needs text-generation"
        )
    message = (settings.get("modality_config") or {}).get("message") or {}
    if message.get("format", "flat") not in ("flat", "auto"):
        raise UnsupportedModel(
            f"{_TRANSFORMER_FILE}: modality_config.message.format is {message['format']!r}; poolc "
            "reads flat messages: change the template and this to flat"
        )


def _token_ids(config: Mapping[str, Any], file: str) -> tuple[int, ...]:
    true, false = config.get("true_token_id"), config.get("false_token_id")
    for name, value in (("true_token_id", true), ("false_token_id", false)):
        if value is None and name == "false_token_id":
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise UnsupportedModel(f"{file}: {name} is {value!r}; it must be a token id")
    read = config.get("module_input_name", "causal_logits")
    if read != "causal_logits":
        raise UnsupportedModel(
            f"{file}: module_input_name is {read!r}; poolc reads causal_logits here"
        )
    return (true,) if false is None else (false, true)  # type: ignore[return-value]


def _template_values(settings: Mapping[str, Any]) -> dict[str, Any]:
    given = (settings.get("processing_kwargs") or {}).get("chat_template") or {}
    if not isinstance(given, Mapping):
        raise UnsupportedModel(f"{_TRANSFORMER_FILE}: {_CHAT_TEMPLATE} is not an object")
    values = {name: value for name, value in given.items() if name not in _OF_TOKENIZING}
    for name, value in values.items():
        if name == "chat_template" or not isinstance(value, str | int | float | bool | None):
            raise UnsupportedModel(
                f"{_TRANSFORMER_FILE}: {_CHAT_TEMPLATE}.{name} is {value!r}; poolc reads texts, "
                "numbers, true, false and null there"
            )
    return values
