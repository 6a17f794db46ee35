"""Which prefix is put before a text."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from poolc.errors import InvalidOption
from poolc.runtime.engine import Engine
from poolc.runtime.prompts import document_prompt_name, resolve_prompt
from poolc.runtime.request import Params


@pytest.mark.parametrize(
    ("params", "default", "expected"),
    [
        (Params(), None, ""),
        (Params(), "query", "query: "),
        (Params(prompt=""), "query", ""),
        (Params(prompt="find: "), "query", "find: "),
        (Params(prompt_name="document"), "query", "passage: "),
        (Params(prompt="x", prompt_name="document"), None, "x"),
    ],
)
def test_prompt(embedder: Engine, params: Params, default: str | None, expected: str) -> None:
    spec = replace(embedder.spec, default_prompt_name=default)
    assert resolve_prompt(spec, params) == expected


def test_query_and_document_are_always_there(embedder: Engine) -> None:
    spec = replace(embedder.spec, prompts={})
    assert resolve_prompt(spec, Params(prompt_name="query")) == ""
    assert resolve_prompt(spec, Params(prompt_name="document")) == ""


@pytest.mark.parametrize("name", ["passage", "", "Query"])
def test_unknown_prompt_name(embedder: Engine, name: str) -> None:
    message = f"prompt_name is {name!r}; this model has: document, query"
    with pytest.raises(InvalidOption, match=message) as caught:
        embedder.embed("a text", prompt_name=name)
    assert caught.value.param == "prompt_name"


@pytest.mark.parametrize(
    ("prompt", "message"), [(5, "prompt is int"), ("a\ud800", "lone surrogate at position 1")]
)
def test_prompt_that_is_not_text(embedder: Engine, prompt: Any, message: str) -> None:
    with pytest.raises(InvalidOption, match=message) as caught:
        embedder.embed("a text", prompt=prompt)
    assert caught.value.param == "prompt"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("document", "passage"), "document"),
        (("corpus", "passage"), "passage"),
        (("corpus",), "corpus"),
        ((), "document"),
    ],
)
def test_document_prompt_name(embedder: Engine, names: tuple[str, ...], expected: str) -> None:
    spec = replace(embedder.spec, prompts=dict.fromkeys(names, "x"))
    assert document_prompt_name(spec) == expected


def test_prompts_count_towards_the_length(embedder: Engine) -> None:
    text = "bread " * 60
    with pytest.raises(ValueError, match="the limit is 64"):
        embedder.embed(text, prompt="flour " * 10)
    assert embedder.embed(text, prompt="flour " * 10, truncate=True).shape == (1, 32)
