"""A reranker's pairs as prompts: against prompts written out here and transformers' logits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import poolc
from poolc.errors import InvalidOption, InvalidText, TextTooLong
from poolc.runtime.engine import Engine
from poolc.runtime.request import Params
from poolc.spec import Task
from tests.models import RERANKER_LENGTH

PROMPT = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and "
    'the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n<Instruct>: {}\n<Query>: {}\n<Document>: {}<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>\n\n"
)
WEB_SEARCH = "Given a web search query, retrieve relevant passages that answer the query"
QUERY = "what runs through the town?"
DOCUMENTS = ["a river runs through the old town", "bread", "Réserver une table à Zürich " * 4]
OWN = "{{ query }} / {{ document }}"


@pytest.fixture(scope="module")
def reranker(artifact: Callable[[str], Path]) -> Engine:
    return poolc.load(artifact("tiny_lm_reranker"))


@pytest.fixture(scope="module")
def library(source: Callable[[str], Path]) -> Callable[[list[str]], Any]:
    """Return the probability of "good" after each prompt, by transformers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = source("tiny_lm_reranker")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    ids = tokenizer.convert_tokens_to_ids(["bad", "good"])

    def run(prompts: list[str]) -> Any:
        with torch.inference_mode():
            rows = [
                model(input_ids=tokenizer(p, return_tensors="pt")["input_ids"]).logits[0, -1, ids]
                for p in prompts
            ]
        return torch.stack(rows).softmax(dim=1)[:, 1].numpy()

    return run


def test_reranker_scores(reranker: Engine, library: Callable[[list[str]], Any]) -> None:
    assert reranker.spec.template == "score_template.jinja"
    for instruction in (None, "Find the river"):
        prompts = [PROMPT.format(instruction or WEB_SEARCH, QUERY, text) for text in DOCUMENTS]
        wanted = library(prompts)
        got = reranker.score(QUERY, DOCUMENTS, instruction=instruction)
        np.testing.assert_allclose(got, wanted, atol=1e-5)
        np.testing.assert_allclose(reranker.classify(prompts).probs[:, 0], wanted, atol=1e-5)
    pairs = [(QUERY, text) for text in DOCUMENTS]
    wanted = library([PROMPT.format(WEB_SEARCH, *pair) for pair in pairs])
    np.testing.assert_allclose(reranker.classify(pairs).probs[:, 0], wanted, atol=1e-5)
    np.testing.assert_allclose(list(reranker.score_iter(pairs)), wanted, atol=1e-5)


def test_reranker_template_of_a_request(
    reranker: Engine, library: Callable[[list[str]], Any]
) -> None:
    wanted = library([f"{QUERY} / {text}" for text in DOCUMENTS])
    np.testing.assert_allclose(reranker.score(QUERY, DOCUMENTS, template=OWN), wanted, atol=1e-5)


def test_cross_encoder_template_of_a_request(cross_encoder: Engine) -> None:
    got = cross_encoder.score("a", ["bread", "a"], template=OWN)
    wanted = cross_encoder.classify(["a / bread", "a / a"]).probs[:, 0]
    np.testing.assert_allclose(got, wanted, atol=1e-6)


def test_texts_and_pairs_in_one_call(reranker: Engine) -> None:
    items: list[Any] = ["a river", (QUERY, "bread"), [5, 6, 7], ("a", "a")]
    together = reranker.classify(items).probs
    alone = np.concatenate([reranker.classify([item]).probs for item in items])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_truncation_keeps_the_template(reranker: Engine) -> None:
    def ids(query: str, document: str) -> list[int]:
        return reranker.tokenize(PROMPT.format(WEB_SEARCH, query, document))

    room = RERANKER_LENGTH - len(ids("a", "dog")) + 1  # "dog" is one token
    long = "dog " * 400
    pairs: list[Any] = [("a", long), ("a", "dog"), (long, "dog bread"), ("a", "dog " * 100_000)]
    prepared = reranker.prepare(Task.SCORE, pairs, Params(truncate=True))
    assert [s.truncated for s in prepared.sequences] == [True, False, True, True]
    cut, short, query_cut, huge = (s.ids.tolist() for s in prepared.sequences)
    assert cut == huge == ids("a", " ".join(["dog"] * room))
    assert short == ids("a", "dog")
    assert query_cut == ids(" ".join(["dog"] * (room + 1)), "")
    limit = RERANKER_LENGTH - 10
    smaller = reranker.prepare(Task.SCORE, pairs, Params(truncate=True, max_length=limit))
    assert smaller.lengths == [limit, len(short), limit, limit]


def test_truncation_below_the_template(reranker: Engine) -> None:
    with pytest.raises(InvalidOption, match=r"max_length is 20, but the score template alone mak"):
        reranker.prepare(Task.SCORE, [("a", "b")], Params(truncate=True, max_length=20))


def test_truncation_keeps_the_end(reranker: Engine, variant: Callable[..., Engine]) -> None:
    engine = variant(reranker, truncation_side="left")
    pairs: list[Any] = [("a", "bread " + "dog " * 399 + "river")]
    (sequence,) = engine.prepare(Task.SCORE, pairs, Params(truncate=True)).sequences
    (river,) = reranker.tokenize("river", add_special_tokens=False)
    (bread,) = reranker.tokenize("bread", add_special_tokens=False)
    assert len(sequence) == RERANKER_LENGTH
    assert river in sequence.ids
    assert bread not in sequence.ids


def test_budgets_inside_a_prompt(reranker: Engine, library: Callable[[list[str]], Any]) -> None:
    wanted = library([PROMPT.format(WEB_SEARCH, "bread needs", "a river runs")])
    got = reranker.score(
        "bread needs flour",
        "a river runs through the town",
        max_query_length=2,
        max_document_length=3,
    )
    np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_prompt_that_is_too_long(reranker: Engine) -> None:
    pairs: list[Any] = [("a", "a"), ("a", "dog " * 400)]
    for call in (reranker.prepare, reranker.check):
        with pytest.raises(TextTooLong, match=r"item 1 has \d+ tokens; the limit is 320") as caught:
            call(Task.SCORE, pairs, Params())
        assert caught.value.index == 1


def test_empty_text_of_a_pair(reranker: Engine) -> None:
    with pytest.raises(InvalidText, match="item 1 is empty"):
        reranker.score(["a", "a"], ["a", ""])


def test_template_and_instruction_refused(
    reranker: Engine, cross_encoder: Engine, embedder: Engine
) -> None:
    with pytest.raises(
        InvalidOption, match="this model has none: leave it out, or pass a template"
    ):
        cross_encoder.score("a", "a", instruction="x")
    with pytest.raises(InvalidOption, match="this one is of kind embedding: leave it out"):
        embedder.score("a", "a", template=OWN)
    with pytest.raises(InvalidOption, match="instruction has no place in this model's score temp"):
        reranker.score("a", "a", template=OWN, instruction="x")
    with pytest.raises(InvalidOption, match="template uses 'doc', which it is not given"):
        reranker.score("a", "a", template="{{ query }} {{ doc }}")
    with pytest.raises(InvalidOption, match="instruction is int; allowed: a string"):
        reranker.score("a", "a", instruction=3)  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="instruction is not valid Unicode"):
        reranker.score("a", "a", instruction="\ud800")
