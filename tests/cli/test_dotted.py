"""vLLM's dotted options become the JSON objects that every command has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from poolc.cli.dotted import with_objects
from poolc.errors import InvalidOption
from tests.cli.conftest import Cli


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--pooler-config.pooling_type", "CLS"], {"pooling_type": "CLS"}),
        (["--pooler-config.pooling-type=MEAN"], {"pooling_type": "MEAN"}),
        (
            ["--pooler-config.normalize", "false", "--pooler-config.dimensions", "8"],
            {"normalize": False, "dimensions": 8},
        ),
        (["--pooler-config.use_activation=False"], {"use_activation": False}),
        (["--pooler-config.returned_token_ids", "[4, 2]"], {"returned_token_ids": [4, 2]}),
    ],
)
def test_fields_are_joined(arguments: list[str], expected: Any) -> None:
    *plain, option, value = with_objects(["compile", "model", *arguments])
    assert (plain, option) == (["compile", "model"], "--pooler-config")
    assert json.loads(value) == expected


def test_nested_overrides_and_what_stays() -> None:
    given = ["compile", "--hf-overrides.a.b", "1", "--max-length", "9", "--", "--hf-overrides.x"]
    made = ["--hf-overrides", '{"a": {"b": 1}}']
    assert with_objects(given) == ["compile", "--max-length", "9", *made, "--", given[-1]]
    plain = ["compile", "--pooler-config", "{}", "a.b"]
    assert with_objects(plain) == plain


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pooler-config.task"], "--pooler-config.task has no value"),
        (["--pooler-config.a=1", "--pooler-config.a=2"], "--pooler-config.a=2 is given twice"),
        (
            ["--pooler-config={}", "--pooler-config.task=embed"],
            "--pooler-config and --pooler-config.task are both given",
        ),
    ],
)
def test_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        with_objects(arguments)


def test_command_line(cli: Cli, tiny_embedder: Path, text_file: Path) -> None:
    option = ("--pooler-config.pooling_type", "CLS")
    ran = cli("embed", tiny_embedder, text_file, "-o", "-", *option)
    assert ran.code == 2
    assert "pooler_config cannot change a compiled artifact" in ran.err
