"""Checkpoints in their authors' layout, whose repositories bring code that is not run here."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.compiler.author_layouts import (
    GTE,
    NOMIC,
    as_author,
    gte_frequencies,
    jina,
    jina_native,
    jina_peft,
    native,
)
from tests.matrix import compare
from tests.matrix.checkpoints.base import UPSTREAM_NOT_RUN, Checkpoint

if TYPE_CHECKING:
    from poolc.runtime.engine import Engine

_TASK = "retrieval.query"


def _layout(family: str, config: dict[str, Any]) -> Callable[[Path], Path]:
    """Beside it, the same model as transformers saves it."""

    def build(root: Path) -> Path:
        native(root / "model", family)
        shutil.copytree(root / "model", root / "native")
        as_author(root / "model", config)
        return root / "model"

    return build


def _jina_stacked(root: Path) -> Path:
    jina(root / "model")
    jina_native(root / "model", root / "native", _TASK)
    return root / "model"


def _jina_peft(root: Path) -> Path:
    merged = jina_peft(root / "model")
    shutil.copytree(root / "model", root / "native", ignore=shutil.ignore_patterns("text_matching"))
    merged.save_pretrained(root / "native")
    return root / "model"


def _as_native(folder: Path, engine: Engine) -> compare.Measured:
    return _against(compare.library(folder.with_name("native")), engine)


def _gte(folder: Path, engine: Engine) -> compare.Measured:
    """transformers has no NTK scaling of this kind: its frequencies are made in NumPy."""
    model = compare.library(folder.with_name("native"))
    model[0].model.rotary_emb.inv_freq = gte_frequencies()
    return _against(model, engine)


def _against(model: Any, engine: Engine) -> compare.Measured:
    measured = compare.vectors(model, engine)
    return replace(measured, reference="transformers' class of the model, translated by hand")


CHECKPOINTS = (
    Checkpoint(
        "gte-new-impl",
        "GTE, new-impl with NTK scaling",
        "Alibaba-NLP/gte-large-en-v1.5, gte-multilingual-base",
        _layout("gte", GTE),
        _gte,
        note=UPSTREAM_NOT_RUN,
    ),
    Checkpoint(
        "nomic-bert-original",
        "NomicBERT with GPT-2's names of sizes",
        "nomic-ai/nomic-embed-text-v1.5",
        _layout("nomic-bert", NOMIC),
        _as_native,
        note=UPSTREAM_NOT_RUN,
    ),
    Checkpoint(
        "jina-v3-stacked",
        "Jina v3, one of five stacked adapters merged",
        "jinaai/jina-embeddings-v3",
        _jina_stacked,
        _as_native,
        {"hf_overrides": {"jina_task": _TASK}},
        UPSTREAM_NOT_RUN,
    ),
    Checkpoint(
        "jina-v3-peft",
        "Jina v3, an adapter of PEFT merged",
        "jinaai/jina-embeddings-v3-hf",
        _jina_peft,
        _as_native,
        note=UPSTREAM_NOT_RUN,
    ),
)
