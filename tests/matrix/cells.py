"""Which head is measured with which family, and why not where it is not: nothing is left out
without a reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import transformers

from tests.matrix.families import FAMILIES, Family
from tests.matrix.heads import HEADS

# Heads that read what the family's other heads were measured on: two families stand for all.
_SHARED = {
    "pooled": "arithmetic on the hidden states that the other columns compare",
    "multi-label": "the logits of the column of classes, under another activation",
    "regression": "the logits of the column of classes, without an activation",
}
_STANDING_FOR_ALL = ("bert", "qwen3")
_ENCODER_DECODERS = ("t5", "mt5")
_BIDIRECTIONAL = ("gemma3", "qwen2-bidirectional")
# Which Auto class builds a head.
_MAPPINGS = {
    "tokens": "AutoModelForTokenClassification",
    "splade": "AutoModelForMaskedLM",
    "reranker": "AutoModelForCausalLM",
}
_CLASSIFIERS = ("single-label", "multi-label", "regression", "cross-encoder")


@dataclass(frozen=True, slots=True)
class Cell:
    """``reason`` says why there is nothing to measure; None where there is."""

    family: str
    head: str
    reason: str | None = None

    @property
    def name(self) -> str:
        return f"{self.family}/{self.head}"


def cells() -> list[Cell]:
    """Return every family with every head."""
    return list(_cells())


def _cells() -> Iterator[Cell]:
    for family in FAMILIES.values():
        for head in HEADS:
            yield Cell(family.name, head, _reason(family, head))


def _reason(family: Family, head: str) -> str | None:
    if family.name in _ENCODER_DECODERS and head in _CLASSIFIERS:
        return (
            "transformers' class answers at the decoder's last end token, found by indexing with "
            "a mask, and refuses texts with different numbers of it: not exportable"
        )
    if head == "cls" and family.decoder:
        return "the first token of a causal model has seen nothing of the text"
    if head in _MAPPINGS and _class_of(family) not in _mapping(_MAPPINGS[head]):
        return f"transformers has no class of this family for {_MAPPINGS[head]}"
    if head == "reranker" and (not family.decoder or family.name in _BIDIRECTIONAL):
        return "made from language models that read from left to right"
    if head in _SHARED and family.name not in _STANDING_FOR_ALL:
        return f"{_SHARED[head]}; measured with {' and '.join(_STANDING_FOR_ALL)}"
    return None


def _class_of(family: Family) -> Any:
    return getattr(transformers, family.backbone).config_class


def _mapping(auto: str) -> Any:
    return getattr(transformers, auto)._model_mapping
