"""Rotary positions that depend on a text's length, lowered to those that they are here."""

from __future__ import annotations

from typing import Any

# With other keys (HunYuan's alpha) a family computes frequencies of its own.
_KNOWN = frozenset(
    {
        *("rope_type", "type", "rope_theta", "factor", "partial_rotary_factor"),
        "original_max_position_embeddings",  # which transformers' dynamic does not read
    }
)


def lower_dynamic(config: Any) -> Any:
    """Turn rope_type dynamic of a configuration into default, and return it.

    transformers computes frequencies from the longest text once that is longer than
    max_position_embeddings, which no text is here; until then they are those of the default. torch
    cannot export the question.
    """
    text = config.get_text_config()
    found = getattr(text, "rope_parameters", None)
    if not isinstance(found, dict) or not isinstance(
        getattr(text, "max_position_embeddings", None), int
    ):
        return config
    if "rope_type" in found:
        text.rope_parameters = _lowered(found)
    elif any(map(_is_dynamic, found.values())):  # by kind of layer
        text.rope_parameters = {kind: _lowered(rope) for kind, rope in found.items()}
    return config


def _is_dynamic(rope: Any) -> bool:
    return isinstance(rope, dict) and rope.get("rope_type") == "dynamic" and rope.keys() <= _KNOWN


def _lowered(rope: Any) -> Any:
    if not _is_dynamic(rope):
        return rope
    kept = {key: rope[key] for key in ("rope_theta", "partial_rotary_factor") if key in rope}
    return {"rope_type": "default", **kept}
