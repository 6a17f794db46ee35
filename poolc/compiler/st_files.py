"""Sentence Transformers folders: modules.json and the configuration of each module.

Reads layouts of versions 2 to 6. A module that poolc does not know is refused by name: leaving one
out would change the vectors.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from poolc.compiler.json_files import read_json
from poolc.errors import UnsupportedModel
from poolc.spec import Activation, LayerSpec, PoolingType

# Configuration of the Transformer module; the name carries the family in old saves.
_BERT_CONFIGS = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)
# In the order in which Sentence Transformers concatenates them when several are on.
_POOLING_FLAGS = {
    "pooling_mode_cls_token": PoolingType.CLS,
    "pooling_mode_max_tokens": PoolingType.MAX,
    "pooling_mode_mean_tokens": PoolingType.MEAN,
    "pooling_mode_mean_sqrt_len_tokens": PoolingType.MEAN_SQRT_LEN,
    "pooling_mode_weightedmean_tokens": PoolingType.WEIGHTED_MEAN,
    "pooling_mode_lasttoken": PoolingType.LAST,
}
_POOLING_NAMES = {
    "cls": PoolingType.CLS,
    "max": PoolingType.MAX,
    "mean": PoolingType.MEAN,
    "mean_sqrt_len_tokens": PoolingType.MEAN_SQRT_LEN,
    "weightedmean": PoolingType.WEIGHTED_MEAN,
    "lasttoken": PoolingType.LAST,
}


@dataclass(frozen=True, slots=True)
class Module:
    """One entry of modules.json: class name without its package, and its folder."""

    kind: str
    path: str


@dataclass(frozen=True, slots=True)
class SentenceTransformer:
    """What a Sentence Transformers folder configures; None or empty where it says nothing."""

    transformer: str  # folder of config.json and the weights, relative
    model_type: str  # SentenceTransformer | CrossEncoder | ...
    pooling: tuple[PoolingType, ...]
    pooling_file: str
    layers: tuple[LayerSpec, ...]
    normalize: bool
    max_length: int | None
    max_length_file: str
    lower_case: bool
    settings: dict[str, Any]  # config_sentence_transformers.json


def read(folder: Path) -> SentenceTransformer | None:
    """Read the folder; None where it has no modules.json.

    Raises UnsupportedModel that names the file and the module or key.
    """
    if not (folder / "modules.json").is_file():
        return None
    modules = _modules(folder / "modules.json")
    settings = read_json(folder / "config_sentence_transformers.json")
    if modules[0].kind != "Transformer":
        raise UnsupportedModel(
            f"modules.json starts with {modules[0].kind}; poolc reads Transformer"
        )
    bert_path, bert = _transformer_config(folder, modules[0].path)
    heads = modules[1:]
    _check_order([module.kind for module in heads])
    pooling_path = next((m.path for m in heads if m.kind == "Pooling"), None)
    pooling_file = f"{pooling_path}/config.json"
    return SentenceTransformer(
        transformer=modules[0].path,
        model_type=str(settings.get("model_type") or "SentenceTransformer"),
        pooling=_pooling(folder / pooling_file, pooling_file) if pooling_path is not None else (),
        pooling_file=pooling_file,
        layers=tuple(_dense(folder, m.path) for m in heads if m.kind == "Dense"),
        normalize=any(module.kind == "Normalize" for module in heads),
        max_length=_length(bert.get("max_seq_length"), bert_path),
        max_length_file=bert_path,
        lower_case=bool(bert.get("do_lower_case", False)),
        settings=settings,
    )


def transformer_path(folder: Path) -> str:
    """Return the folder of config.json, the tokenizer and the weights, relative to the model's."""
    path = folder / "modules.json"
    return _modules(path)[0].path if path.is_file() else ""


def module_paths(folder: Path) -> list[str]:
    """Return the folders that hold modules, relative to the model's; [""] for a plain model."""
    path = folder / "modules.json"
    return sorted({module.path for module in _modules(path)}) if path.is_file() else [""]


def _modules(path: Path) -> list[Module]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        modules = [Module(_kind(e["type"]), _inside(e["path"])) for e in entries]
    except (ValueError, OSError, KeyError, TypeError, AttributeError) as error:
        raise UnsupportedModel(f"modules.json is not a list of type and path: {error}") from error
    # Dropout does nothing at inference; ``logit_score.py`` reads the other.
    modules = [module for module in modules if module.kind not in ("Dropout", "LogitScore")]
    if not modules:
        raise UnsupportedModel("modules.json names no modules")
    return modules


def _kind(dotted: str) -> str:
    """Return a module's class name; refuse classes that the model brings itself."""
    if not dotted.startswith("sentence_transformers."):
        raise UnsupportedModel(
            f"modules.json names {dotted}, code that the model brings itself; poolc reads modules "
            "of sentence_transformers and runs no others"
        )
    return dotted.rpartition(".")[2]


def _inside(path: str) -> str:
    """Return a module's folder; raise ValueError for one outside the model's."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts:
        raise ValueError(f"path {path!r} leaves the model's folder")
    return path


def _check_order(kinds: list[str]) -> None:
    """Refuse what is not Pooling, Dense..., Normalize in this order."""
    rank = {"Pooling": 0, "Dense": 1, "Normalize": 2}
    for kind in kinds:
        if kind not in rank:
            raise UnsupportedModel(
                f"modules.json has a {kind} module; poolc reads Transformer, Pooling, Dense, "
                "Normalize and Dropout"
            )
    ranks = [rank[kind] for kind in kinds]
    if ranks != sorted(ranks) or kinds.count("Pooling") > 1:
        raise UnsupportedModel(
            f"modules.json orders {', '.join(kinds)}; poolc reads Pooling, Dense..., Normalize"
        )


def _transformer_config(folder: Path, path: str) -> tuple[str, dict[str, Any]]:
    for name in _BERT_CONFIGS:
        config = read_json(folder / path / name)
        if config:
            return name, config
    return _BERT_CONFIGS[0], {}


def _pooling(path: Path, name: str) -> tuple[PoolingType, ...]:
    config = read_json(path)
    if not config:
        raise UnsupportedModel(f"{name} is missing, which modules.json names")
    if config.get("include_prompt") is False:
        raise UnsupportedModel(
            f"{name} excludes the prompt from pooling (include_prompt): poolc does not compile that"
        )
    if "pooling_mode" in config:
        modes = config["pooling_mode"]
        names = [modes] if isinstance(modes, str) else list(modes)
        unknown = [mode for mode in names if mode not in _POOLING_NAMES]
        if unknown or not names:
            raise UnsupportedModel(
                f"{name}: pooling_mode {unknown or names}; known: {', '.join(_POOLING_NAMES)}"
            )
        return tuple(_POOLING_NAMES[mode] for mode in names)
    known = tuple(kind for flag, kind in _POOLING_FLAGS.items() if config.get(flag) is True)
    unknown = [
        key
        for key, value in config.items()
        if key.startswith("pooling_mode_") and value is True and key not in _POOLING_FLAGS
    ]
    if unknown:
        raise UnsupportedModel(f"{name}: {', '.join(unknown)}; known: {', '.join(_POOLING_FLAGS)}")
    return known or (PoolingType.MEAN,)


def _dense(folder: Path, path: str) -> LayerSpec:
    name = f"{path}/config.json"
    config = read_json(folder / path / "config.json")
    weights = folder / path / "model.safetensors"
    if not config or not weights.is_file():
        missing = weights.name if config else "config.json"
        raise UnsupportedModel(f"{path}/{missing} is missing, which modules.json needs")
    for key in ("module_input_name", "module_output_name"):
        if config.get(key) not in (None, "sentence_embedding"):
            raise UnsupportedModel(
                f"{name}: {key} is {config[key]!r}; poolc reads sentence_embedding"
            )
    try:
        return LayerSpec(
            path=path,
            in_features=int(config["in_features"]),
            out_features=int(config["out_features"]),
            bias=bool(config.get("bias", True)),
            activation=activation(config.get("activation_function", "torch.nn.Tanh"), name),
            residual=bool(config.get("use_residual", False)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UnsupportedModel(f"{name}: {error}") from error


def activation(path: object, where: str) -> Activation:
    """Map a dotted torch class name to an Activation. Raises UnsupportedModel for others."""
    package, _, name = str(path).rpartition(".")
    if f"{package}.".removeprefix("torch.nn.") == f"{package}." or name.lower() not in set(
        Activation
    ):
        raise UnsupportedModel(
            f"{where}: activation {path!r}; known: torch.nn's {', '.join(Activation)}"
        )
    return Activation(name.lower())


def _length(value: Any, where: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UnsupportedModel(
            f"{where}: max_seq_length is {value!r}; it must be a positive integer"
        )
    return value
