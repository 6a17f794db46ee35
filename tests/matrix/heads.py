"""The heads of the matrix: how each makes, of a family, the folder that a user would have.

A head is an entry of ``HEADS``: what builds the folder, and what of ``compare.py`` measures it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.matrix import compare, token_heads
from tests.matrix.families import Family
from tests.models import HIDDEN, save_model, write_json, write_modules, write_pooling

if TYPE_CHECKING:
    from poolc.runtime.engine import Engine

_LAYOUT_6 = "sentence_transformers.sentence_transformer.modules"
_BASE_6 = "sentence_transformers.base.modules"


@dataclass(frozen=True, slots=True)
class Head:
    """``build`` writes the folder; ``measure`` compares its artifact with the library."""

    name: str
    title: str
    build: Callable[[Family, Path], None]
    measure: Callable[[Path, Engine], compare.Measured]


def _backbone(family: Family, folder: Path) -> Any:
    import transformers

    config = family.config(folder)
    save_model(getattr(transformers, family.backbone)(config), folder, scale=family.scale)
    return config


def _classifier(family: Family, folder: Path, **settings: Any) -> None:
    from transformers import AutoModelForSequenceClassification

    config = family.config(folder)
    config.update(settings)
    save_model(
        AutoModelForSequenceClassification.from_config(config), folder, seed=1, scale=family.scale
    )


def _embedder(*modes: str) -> Callable[[Family, Path], None]:
    """Layout of Sentence Transformers 2 to 5: a flag a pooling mode."""

    def build(family: Family, folder: Path) -> None:
        _backbone(family, folder)
        write_pooling(folder, *modes)
        write_modules(
            folder, ("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")
        )

    return build


def _mean(family: Family, folder: Path) -> None:
    """Layout of Sentence Transformers 6, whose Pooling module writes its own configuration."""
    from sentence_transformers.sentence_transformer.modules import Pooling

    _backbone(family, folder)
    (folder / "1_Pooling").mkdir()
    Pooling(HIDDEN, pooling_mode="mean").save(str(folder / "1_Pooling"))
    _modules_6(folder, ("", f"{_BASE_6}.transformer.Transformer"), _POOLING_6, _normalize_6(2))


def _dense(family: Family, folder: Path) -> None:
    """EmbeddingGemma's chain: mean, two Dense modules without bias, Normalize."""
    import torch
    from sentence_transformers.base.modules import Dense
    from sentence_transformers.sentence_transformer.modules import Pooling

    _mean(family, folder)
    torch.manual_seed(5)
    chain = (
        Dense(HIDDEN, 64, bias=False, activation_function=torch.nn.Identity()),
        Dense(64, 24, bias=True, activation_function=torch.nn.Tanh()),
    )
    for place, dense in enumerate(chain, 2):
        (folder / f"{place}_Dense").mkdir()
        dense.save(str(folder / f"{place}_Dense"))
    Pooling(HIDDEN, pooling_mode="mean").save(str(folder / "1_Pooling"))
    _modules_6(
        folder,
        ("", f"{_BASE_6}.transformer.Transformer"),
        _POOLING_6,
        ("2_Dense", f"{_BASE_6}.dense.Dense"),
        ("3_Dense", f"{_BASE_6}.dense.Dense"),
        _normalize_6(4),
    )


_POOLING_6 = ("1_Pooling", f"{_LAYOUT_6}.pooling.Pooling")


def _normalize_6(place: int) -> tuple[str, str]:
    return (f"{place}_Normalize", f"{_BASE_6}.normalize.Normalize")


def _modules_6(folder: Path, *modules: tuple[str, str]) -> None:
    entries = [
        {"idx": i, "name": str(i), "path": path, "type": kind}
        for i, (path, kind) in enumerate(modules)
    ]
    write_json(folder / "modules.json", entries)
    write_json(folder / "config_sentence_transformers.json", {"model_type": "SentenceTransformer"})


def _single_label(family: Family, folder: Path) -> None:
    _classifier(family, folder, id2label={0: "negative", 1: "neutral", 2: "positive"})


def _multi_label(family: Family, folder: Path) -> None:
    _classifier(
        family,
        folder,
        id2label={0: "calm", 1: "angry", 2: "sad"},
        problem_type="multi_label_classification",
    )


def _regression(family: Family, folder: Path) -> None:
    _classifier(family, folder, id2label={0: "quality"}, problem_type="regression")


def _cross_encoder(family: Family, folder: Path) -> None:
    activation = {"activation_fn": "torch.nn.modules.activation.Sigmoid"}
    _classifier(family, folder, id2label={0: "LABEL_0"}, sentence_transformers=activation)


_ENTRIES = (
    Head("mean", "mean", _mean, compare.embedding),
    Head("cls", "CLS", _embedder("cls_token"), compare.embedding),
    Head("last", "last token", _embedder("lasttoken"), compare.embedding),
    Head("dense", "mean, Dense chain", _dense, compare.embedding),
    Head(
        "pooled",
        "max + mean_sqrt_len + weighted mean",
        _embedder("max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens"),
        compare.embedding,
    ),
    Head("single-label", "classes", _single_label, compare.classes),
    Head("multi-label", "multi label", _multi_label, compare.classes),
    Head("regression", "regression", _regression, compare.classes),
    Head("cross-encoder", "cross-encoder", _cross_encoder, compare.pairs),
    Head(
        "tokens",
        "classes of tokens",
        token_heads.token_classes,
        token_heads.measure_token_classes,
    ),
    Head("splade", "SPLADE", token_heads.splade, token_heads.measure_splade),
    Head("colbert", "ColBERT", token_heads.colbert, token_heads.measure_colbert),
    Head("reranker", "LM reranker", token_heads.reranker, token_heads.measure_reranker),
)

HEADS: Mapping[str, Head] = {head.name: head for head in _ENTRIES}
