"""modules.json: which modules a model has, in order, and which of them poolc refuses by name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from poolc.errors import UnsupportedModel

MODULES_FILE = "modules.json"
SPARSE_STATIC = "SparseStaticEmbedding"

# Why modules of the library are not compiled, by class name.
_REFUSED = {
    "WeightedLayerPooling": "it mixes the hidden states of every layer, of which poolc's graphs "
    "have the last",
    "CNN": "its convolution reads across the padding of a batch, so that a text's vector depends "
    "on its neighbours",
    "LSTM": "poolc's graphs have no recurrent layers",
    "WordWeights": "it weighs tokens by a list of words of its own",
    "BoW": "it counts words that a tokenizer in Python finds",
    "WordEmbeddings": "it looks up words that a tokenizer in Python finds",
    "CLIPModel": "it reads images",
    "SparseAutoEncoder": "its codes are the largest of thousands of hidden units, not tokens",
    SPARSE_STATIC: "it weighs tokens without a model, for one side of a pair of models",
}
# PyLate's own Dense is a copy of Sentence Transformers'.
_COPIES = {"pylate.models.Dense.Dense": "sentence_transformers.models.Dense"}
KNOWN = "Transformer, StaticEmbedding, Router, Pooling, Dense, LayerNorm, Normalize and Dropout"


@dataclass(frozen=True, slots=True)
class Module:
    """One entry of modules.json: class name without its package, and its folder."""

    kind: str
    path: str


def read_modules(path: Path) -> list[Module]:
    """Read modules.json without what does nothing. Raises UnsupportedModel."""
    entries = read_entries(path)
    modules = without_dropout([Module(class_name(e["type"]), e["path"]) for e in entries])
    if not modules:
        raise UnsupportedModel("modules.json names no modules")
    return modules


def native_modules(path: Path) -> list[dict[str, Any]]:
    """Return modules.json with the library's Transformer in place of a model's own.

    For models whose own one only chose what is merged into the weights.
    """
    entries = read_entries(path)
    if entries[0]["type"] == "custom_st.Transformer":
        entries[0] = {
            "idx": 0,
            "name": "0",
            "path": entries[0]["path"],
            "type": "sentence_transformers.models.Transformer",
        }
    return entries


def read_entries(path: Path) -> list[dict[str, Any]]:
    """Read modules.json as it is. Raises UnsupportedModel."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        found = [{**e, "type": str(e["type"]), "path": inside(e["path"])} for e in entries]
    except (ValueError, OSError, KeyError, TypeError, AttributeError) as error:
        raise UnsupportedModel(f"modules.json is not a list of type and path: {error}") from error
    if not found:
        raise UnsupportedModel("modules.json names no modules")
    return found


def without_dropout(modules: list[Module]) -> list[Module]:
    """Leave out Dropout, which does nothing at inference, and what ``logit_score.py`` reads."""
    return [module for module in modules if module.kind not in ("Dropout", "LogitScore")]


def class_name(dotted: str, file: str = MODULES_FILE) -> str:
    """Return a module's class name; refuse classes that the model brings itself."""
    dotted = _COPIES.get(dotted, dotted)
    if not dotted.startswith("sentence_transformers."):
        raise UnsupportedModel(
            f"{file} names {dotted}, code that the model brings itself; poolc reads modules "
            "of sentence_transformers and runs no others"
        )
    return dotted.rpartition(".")[2]


def inside(path: str) -> str:
    """Return a module's folder; raise ValueError for one outside the model's."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts:
        raise ValueError(f"path {path!r} leaves the model's folder")
    return "" if path == "." else path


def refuse_first(kind: str, reads: str) -> UnsupportedModel:
    """Return the error for a module that stands first in modules.json and is none that ``reads``
    names."""
    reason = f"; of {kind}: {_REFUSED[kind]}" if kind in _REFUSED else ""
    return UnsupportedModel(f"{MODULES_FILE} starts with {kind}; poolc reads {reads}{reason}")


def refuse(kind: str) -> UnsupportedModel:
    """Return the error for a module that poolc does not compile."""
    if kind in _REFUSED:
        return UnsupportedModel(
            f"modules.json has a {kind} module, which poolc does not compile: {_REFUSED[kind]}"
        )
    return UnsupportedModel(f"modules.json has a {kind} module; poolc reads {KNOWN}")
