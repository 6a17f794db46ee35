"""Which prefix is put before a text."""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poolc.errors import InvalidOption
from poolc.runtime.engine import Engine
from poolc.runtime.prompts import resolve_prompt
from poolc.runtime.request import Params
from tests.runtime.conftest import Variant


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


@pytest.mark.parametrize("name", [["query"], 5, {}])
def test_prompt_name_that_is_not_text(embedder: Engine, name: Any) -> None:
    with pytest.raises(InvalidOption, match=r"prompt_name is .*; allowed: a string") as caught:
        embedder.embed("a text", prompt_name=name)
    assert caught.value.param == "prompt_name"


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
    ("prompts", "default"),
    [
        ({"query": "query: ", "document": "passage: "}, None),
        ({"query": "query: ", "passage": "passage: "}, None),
        ({"query": "query: ", "passage": "passage: "}, "passage"),
        ({"corpus": "passage: "}, "corpus"),
        ({}, "query"),
        ({}, None),
    ],
)
def test_query_and_document_are_those_of_sentence_transformers(
    embedder: Engine,
    variant: Variant,
    tiny_embedder_source: Path,
    tmp_path: Path,
    prompts: dict[str, str],
    default: str | None,
) -> None:
    folder = shutil.copytree(tiny_embedder_source, tmp_path / "model")
    file = folder / "config_sentence_transformers.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "prompts": prompts, "default_prompt_name": default}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers import SentenceTransformer

        reference = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    ours = variant(embedder, prompts=prompts, default_prompt_name=default)
    for kind in ("query", "document"):
        expected = getattr(reference, f"encode_{kind}")(["a river"])
        np.testing.assert_allclose(getattr(ours, f"embed_{kind}")(["a river"]), expected, atol=1e-5)
    np.testing.assert_allclose(ours.embed(["a river"]), reference.encode(["a river"]), atol=1e-5)


def test_prompts_count_towards_the_length(embedder: Engine) -> None:
    text = "bread " * 60
    with pytest.raises(ValueError, match="the limit is 64"):
        embedder.embed(text, prompt="flour " * 10)
    assert embedder.embed(text, prompt="flour " * 10, truncate=True).shape == (1, 32)
