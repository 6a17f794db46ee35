"""Shared options: what was given becomes keywords of the library, JSON is read with care."""

from __future__ import annotations

from dataclasses import fields

import pytest

from poolc.cli.options import CompileArguments, json_object
from poolc.errors import InvalidOption
from poolc.spec import CompileOptions


def test_every_compile_option_is_there() -> None:
    names = {field.name for field in fields(CompileArguments)}
    assert names == {field.name for field in fields(CompileOptions)} | {"refresh"}


def test_nothing_given() -> None:
    assert CompileArguments().given() == {}


def test_given_values() -> None:
    arguments = CompileArguments(
        convert="embed", hf_overrides='{"is_matryoshka": true}', max_length=9, allow_pickle=True
    )
    assert arguments.given() == {
        "convert": "embed",
        "hf_overrides": {"is_matryoshka": True},
        "max_length": 9,
        "allow_pickle": True,
    }


def test_zero_was_given() -> None:
    assert CompileArguments(max_length=0).given() == {"max_length": 0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"a" 1}',
            r"--pooler-config is not JSON at position 5: Expecting ':' delimiter; given: {",
        ),
        ("", "not JSON at position 0"),
        ("[1]", r'must be a JSON object like {"key": value}; given: \[1\]'),
    ],
)
def test_json_that_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        CompileArguments(pooler_config=text).given()


def test_json_object() -> None:
    assert json_object("--x", None) is None
    assert json_object("--x", '{"a": 1}') == {"a": 1}
