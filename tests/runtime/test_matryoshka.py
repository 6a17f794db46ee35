"""What a model's configuration declares about output sizes."""

from __future__ import annotations

from typing import Any

import pytest

from poolc.errors import InvalidOption
from poolc.runtime.matryoshka import parse_matryoshka
from poolc.spec import MatryoshkaSpec


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ({}, MatryoshkaSpec()),
        ({"is_matryoshka": None, "matryoshka_dimensions": None}, MatryoshkaSpec()),
        ({"is_matryoshka": False}, MatryoshkaSpec()),
        ({"is_matryoshka": True}, MatryoshkaSpec(True)),
        ({"is_matryoshka": True, "matryoshka_dimensions": []}, MatryoshkaSpec(True)),
        ({"matryoshka_dimensions": [32, 8]}, MatryoshkaSpec(True, (8, 32))),
        ({"matryoshka_dimensions": (1, 32)}, MatryoshkaSpec(True, (1, 32))),
    ],
)
def test_parse(declared: dict[str, Any], expected: MatryoshkaSpec) -> None:
    assert parse_matryoshka(declared, 32) == expected


@pytest.mark.parametrize("dimensions", [[0], [33], [-1], ["8"], [8.0], [True], 8, "8"])
def test_parse_refuses_dimensions(dimensions: Any) -> None:
    with pytest.raises(InvalidOption, match=r"matryoshka_dimensions is .*integers.* 1 to 32"):
        parse_matryoshka({"matryoshka_dimensions": dimensions}, 32)


@pytest.mark.parametrize("flag", [1, 0, "true", []])
def test_parse_refuses_flags(flag: Any) -> None:
    with pytest.raises(InvalidOption, match=r"is_matryoshka is .*; allowed: true, false"):
        parse_matryoshka({"is_matryoshka": flag}, 32)
