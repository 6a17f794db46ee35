"""benchmarks/slices.py and models.py: which items are measured, and what they cost."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.models import MODEL_BY_NAME, flops
from benchmarks.options import model_or_default
from benchmarks.slices import Counter, Part, Workload, deal, names, workload

MINILM = MODEL_BY_NAME["minilm"]


@pytest.fixture(scope="module")
def counter() -> Counter:
    return Counter(Path(model_or_default(None)), MINILM.max_length)


def test_lengths_are_cut_at_the_limit(counter: Counter) -> None:
    assert counter.lengths(["a text", "word " * 400]) == [4, 256]
    assert counter.lengths([["a query", "a text"]]) == [7]


def test_cut_is_exactly_so_long(counter: Counter) -> None:
    text = counter.cut("some words of a text that goes on for a while, on and on", 8)
    assert text is not None
    assert counter.lengths([text]) == [8]
    assert counter.cut("too short", 8) is None


def test_deal_gives_every_item_once_and_the_same_mixture() -> None:
    part = Part(tuple("abcdef"), (6, 1, 5, 2, 4, 3))
    first, second = deal(part, 2)
    assert sorted(first.items + second.items) == list("abcdef")
    assert abs(first.tokens - second.tokens) <= 3


def test_head_takes_at_least_one() -> None:
    part = Part(("a", "b", "c"), (10, 10, 10))
    assert part.head(5).items == ("a",)
    assert part.head(20).items == ("a", "b")


def test_workload_is_the_same_for_every_run(counter: Counter) -> None:
    made = [workload("mixed", MINILM, counter, None, 3, 12) for _ in range(2)]
    assert made[0] == made[1]
    assert made[0].digest == made[1].digest
    assert [len(part.items) for part in made[0].parts] == [4, 4, 4]


def test_digest_tells_items_apart() -> None:
    parts = [Workload("mixed", (Part((text,), (1,)),)) for text in "ab"]
    assert parts[0].digest != parts[1].digest


def test_names_leave_out_what_the_model_cuts() -> None:
    assert "fixed-512" not in names(MINILM)
    assert "fixed-512" in names(MODEL_BY_NAME["bert-base"])
    assert names(MODEL_BY_NAME["cross-encoder"]) == ("mixed",)


def test_flops_of_bert_base() -> None:
    config = {
        "model_type": "bert",
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
    }
    linear = 2 * 12 * (4 * 768**2 + 2 * 768 * 3072)
    assert flops(config, [128]) == linear * 128 + 12 * 4 * 768 * 128**2
