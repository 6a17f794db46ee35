"""Matryoshka sizes: reading what a model declares, and checking what a request asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from poolc.errors import InvalidDimensions, InvalidOption
from poolc.spec import MatryoshkaSpec

KEYS = ("is_matryoshka", "matryoshka_dimensions")


def parse_matryoshka(declared: Mapping[str, Any], size: int) -> MatryoshkaSpec:
    """Read vLLM's two keys of config.json, for vectors of ``size`` numbers.

    A list of dimensions enables them by itself. Raises InvalidOption that names the key.
    """
    dimensions = declared.get("matryoshka_dimensions") or ()
    valid = isinstance(dimensions, (list, tuple)) and all(
        isinstance(d, int) and not isinstance(d, bool) and 1 <= d <= size for d in dimensions
    )
    if not valid:
        raise InvalidOption(
            f"matryoshka_dimensions is {dimensions!r}; allowed: a list of integers, 1 to {size}",
            param="hf_overrides",
        )
    flag = declared.get("is_matryoshka")
    if flag is not None and not isinstance(flag, bool):
        raise InvalidOption(
            f"is_matryoshka is {flag!r}; allowed: true, false", param="hf_overrides"
        )
    return MatryoshkaSpec(bool(flag) or bool(dimensions), tuple(sorted(dimensions)))


def check_dimensions(spec: MatryoshkaSpec, size: int, dimensions: object) -> None:
    """Raise InvalidDimensions unless vectors of ``size`` may be cut to ``dimensions``."""
    if not spec.enabled:
        raise InvalidDimensions(
            "this model does not support matryoshka representation, changing output dimensions "
            "will lead to poor results; if it was trained for it, say so with "
            'hf_overrides={"is_matryoshka": true}',
            param="dimensions",
        )
    whole = isinstance(dimensions, int) and not isinstance(dimensions, bool)
    if not whole or not 1 <= dimensions <= size:  # type: ignore[operator]
        raise InvalidDimensions(
            f"dimensions is {dimensions!r}; this model has 1 to {size}", param="dimensions"
        )
    if spec.dimensions and dimensions not in spec.dimensions:
        allowed = ", ".join(map(str, spec.dimensions))
        raise InvalidDimensions(
            f"dimensions is {dimensions}; this model was trained for: {allowed}", param="dimensions"
        )
