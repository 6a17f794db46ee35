"""The tokenizer step of a repository against the runtime's own tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

import poolc.export.triton
from poolc.errors import TextTooLong
from poolc.runtime.tokenize import Limits, TextTokenizer

STEP = Path(poolc.export.triton.__file__).with_name("tokenizer_step.py")
WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "Zürich", "0123456789", "東京", "bread"]


@pytest.fixture(scope="module")
def step() -> ModuleType:
    from tests.export.triton import load_step

    return load_step(STEP)


def settings(**changes: Any) -> dict[str, Any]:
    names = ("input_ids", "attention_mask", "token_type_ids")
    usual = {
        "inputs": dict.fromkeys(names, "int64"),
        "truncate": True,
        "pad_to_powers": False,
        "least_tokens": 1,
        "max_length": 16,
        "truncation_side": "right",
        "chars_per_token": None,
        "pad_token_id": 0,
        "takes_prompt": True,
        "prompts": {},
        "default_prompt_name": None,
        "include_prompt": True,
    }
    return usual | changes


def some_texts(seed: int) -> list[str]:
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, size)) for size in (1, 3, 9, 16, 40)]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("limit", [5, 16, 23])
def test_texts_and_pairs(
    step: ModuleType, artifact: Callable[[str], Path], side: str, limit: int
) -> None:
    file = artifact("tiny_embedder") / "tokenizer.json"
    reader = step.TextReader(
        Tokenizer.from_file(str(file)), settings(max_length=limit, truncation_side=side)
    )
    own = TextTokenizer(file, Limits(limit, 400, True, side))
    left, right = some_texts(1), some_texts(2)[::-1]
    for columns, items in (([left], left), ([left, right], list(zip(left, right, strict=True)))):
        made = reader.tensors(columns, {})
        for row, expected in enumerate(own.encode(items, truncate=True)):
            count = len(expected)
            np.testing.assert_array_equal(made["input_ids"][row, :count], expected.ids)
            types = np.zeros(count) if expected.type_ids is None else expected.type_ids
            np.testing.assert_array_equal(made["token_type_ids"][row, :count], types)
            assert made["attention_mask"][row].sum() == count


@pytest.mark.parametrize("side", ["left", "right"])
def test_very_long_texts_are_read_in_part(
    step: ModuleType, artifact: Callable[[str], Path], side: str
) -> None:
    file = artifact("tiny_embedder") / "tokenizer.json"
    reader = step.TextReader(Tokenizer.from_file(str(file)), settings(truncation_side=side))
    own = TextTokenizer(file, Limits(16, 400, True, side))
    long, sparse = " ".join(WORDS * 600), "bread" + " " * 60_000 + "fox"
    pairs = [(long, "bread"), ("bread", long), (long, long[7:]), (sparse, long)]
    (first, second) = zip(*pairs, strict=True)
    texts = [long, sparse]
    for columns, items in (([texts], texts), ([first, second], pairs)):
        made = reader.tensors(columns, {})
        for row, expected in enumerate(own.encode(items, truncate=True)):
            np.testing.assert_array_equal(made["input_ids"][row, : len(expected)], expected.ids)
    endless = "x" * (1 << 20) + "x"
    with pytest.raises(TextTooLong):
        own.encode([endless], truncate=True)
    with pytest.raises(step.Refused, match="1048577 characters"):
        reader.tensors([[endless]], {})


def test_only_so_many_characters_a_token(step: ModuleType, artifact: Callable[[str], Path]) -> None:
    file = artifact("tiny_embedder") / "tokenizer.json"
    reader = step.TextReader(Tokenizer.from_file(str(file)), settings(chars_per_token=2))
    own = TextTokenizer(file, Limits(16, 400, True, chars_per_token=2))
    texts = some_texts(3)
    made = reader.tensors([texts], {})
    for row, expected in enumerate(own.encode(texts, truncate=True)):
        np.testing.assert_array_equal(made["input_ids"][row, : len(expected)], expected.ids)
    with pytest.raises(step.Refused, match="the limit is 32"):
        reader.tensors([texts], {"truncate": False})


@pytest.mark.parametrize("prompt", ["query: ", "find [SEP]", "bread " * 40])
def test_prompts_that_pooling_does_not_count(
    step: ModuleType, artifact: Callable[[str], Path], prompt: str
) -> None:
    file = artifact("tiny_embedder") / "tokenizer.json"
    inputs = dict.fromkeys(("input_ids", "attention_mask", "pooling_mask"), "int32")
    reader = step.TextReader(
        Tokenizer.from_file(str(file)), settings(include_prompt=False, inputs=inputs)
    )
    own = TextTokenizer(file, Limits(16, 400, False))
    texts = some_texts(4)
    made = reader.tensors([texts], {"prompt": prompt})
    assert made["pooling_mask"].dtype == np.int32
    how = {"prefix": prompt, "count_prefix": False}
    for row, expected in enumerate(own.encode(texts, truncate=True, **how)):  # type: ignore[arg-type]
        assert expected.counted is not None
        mask = made["pooling_mask"][row, : len(expected)]
        np.testing.assert_array_equal(mask, expected.counted)


def test_lengths(step: ModuleType, artifact: Callable[[str], Path]) -> None:
    tokenizer = Tokenizer.from_file(str(artifact("tiny_embedder") / "tokenizer.json"))
    powers = step.TextReader(tokenizer, settings(pad_to_powers=True, max_length=50))
    assert [powers._length(n) for n in (1, 16, 17, 33, 50)] == [16, 16, 32, 50, 50]
    eights = step.TextReader(tokenizer, settings(max_length=50, least_tokens=12))
    assert [eights._length(n) for n in (1, 13, 16, 17, 49, 50)] == [12, 16, 16, 24, 50, 50]


def test_a_prompt_that_leaves_nothing_to_count(step: ModuleType) -> None:
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, "bread"))
    tokenizer.pre_tokenizer = Whitespace()
    inputs = dict.fromkeys(("input_ids", "attention_mask", "pooling_mask"), "int64")
    reader = step.TextReader(tokenizer, settings(include_prompt=False, inputs=inputs))
    with pytest.raises(step.Refused, match="row 0: the prompt takes all of its 16 tokens"):
        reader.tensors([["fox"]], {"prompt": "bread " * 16})
