"""The Pooling module's configuration: flags of versions 2 to 4, ``pooling_mode`` of 5 and 6."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from poolc.compiler.json_files import read_json
from poolc.errors import UnsupportedModel
from poolc.spec import PoolingType

# In the order in which Sentence Transformers concatenates them when several are on.
_FLAGS = {
    "pooling_mode_cls_token": PoolingType.CLS,
    "pooling_mode_max_tokens": PoolingType.MAX,
    "pooling_mode_mean_tokens": PoolingType.MEAN,
    "pooling_mode_mean_sqrt_len_tokens": PoolingType.MEAN_SQRT_LEN,
    "pooling_mode_weightedmean_tokens": PoolingType.WEIGHTED_MEAN,
    "pooling_mode_lasttoken": PoolingType.LAST,
}
_NAMES = {
    "cls": PoolingType.CLS,
    "max": PoolingType.MAX,
    "mean": PoolingType.MEAN,
    "mean_sqrt_len_tokens": PoolingType.MEAN_SQRT_LEN,
    "weightedmean": PoolingType.WEIGHTED_MEAN,
    "lasttoken": PoolingType.LAST,
}


@dataclass(frozen=True, slots=True)
class PoolingConfig:
    """What a Pooling module does: several kinds are concatenated."""

    kinds: tuple[PoolingType, ...]
    token_size: int | None = None  # numbers a token, as the file says
    fields: str = ""  # what the file says the kinds with, for errors
    include_prompt: bool = True  # whether the tokens of a prompt count


def read_pooling(path: Path, name: str) -> PoolingConfig:
    """Read the file. Raises UnsupportedModel that names it, and the fields that contradict."""
    config = read_json(path)
    if not config:
        raise UnsupportedModel(f"{name} is missing, which modules.json names")
    counts_prompt = config.get("include_prompt", True)
    if not isinstance(counts_prompt, bool):
        raise UnsupportedModel(f"{name}: include_prompt is {counts_prompt!r}; allowed: true, false")
    flags = _flags(config, name)
    size = config.get("embedding_dimension", config.get("word_embedding_dimension"))
    size = size if isinstance(size, int) and not isinstance(size, bool) else None
    if "pooling_mode" not in config:
        on = [flag for flag in _FLAGS if flags.get(flag)]
        kinds = tuple(_FLAGS[flag] for flag in on)
        return PoolingConfig(kinds or (PoolingType.MEAN,), size, ", ".join(on), counts_prompt)
    kinds = _modes(config["pooling_mode"], name)
    for flag, value in flags.items():
        if value is not (_FLAGS[flag] in kinds):
            raise UnsupportedModel(
                f"{name} contradicts itself: pooling_mode is {config['pooling_mode']!r}, but "
                f"{flag} is {str(value).lower()}: remove one of them"
            )
    return PoolingConfig(kinds, size, f"pooling_mode {config['pooling_mode']!r}", counts_prompt)


def _modes(modes: Any, name: str) -> tuple[PoolingType, ...]:
    names = [modes] if isinstance(modes, str) else modes
    if not isinstance(names, list):
        names = [modes]
    unknown = [mode for mode in names if not isinstance(mode, str) or mode not in _NAMES]
    if unknown or not names:
        raise UnsupportedModel(
            f"{name}: pooling_mode {unknown or names}; known: {', '.join(_NAMES)}"
        )
    return tuple(_NAMES[mode] for mode in names)


def _flags(config: dict[str, Any], name: str) -> dict[str, bool]:
    found = {key: value for key, value in config.items() if key.startswith("pooling_mode_")}
    for key, value in found.items():
        if not isinstance(value, bool):
            raise UnsupportedModel(f"{name}: {key} is {value!r}; allowed: true, false")
    unknown = [key for key, value in found.items() if value and key not in _FLAGS]
    if unknown:
        raise UnsupportedModel(f"{name}: {', '.join(unknown)}; known: {', '.join(_FLAGS)}")
    return {key: value for key, value in found.items() if key in _FLAGS}
