"""Keywords of the public methods: the same everywhere, obeyed or refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import poolc
from poolc.errors import InvalidOption
from poolc.runtime.engine import Engine

LONG = "bread needs flour " * 60
TEXTS = [LONG, "a river"]
METHODS = [
    ("embedder", "embed"),
    ("embedder", "embed_query"),
    ("embedder", "encode"),
    ("splade", "embed_sparse"),
    ("colbert", "embed_tokens"),
    ("bge_m3", "embed_hybrid"),
    ("classifier", "classify"),
    ("cross_encoder", "reward"),
    ("tagger", "classify_tokens"),
]


def first(result: Any) -> Any:
    """Return what says most about the first text of a result."""
    result = getattr(result, "probs", getattr(result, "dense", result))
    row = result[0]
    return np.asarray(getattr(row, "values", row))


@pytest.mark.parametrize(("name", "method"), METHODS)
def test_lengths_everywhere(name: str, method: str, request: pytest.FixtureRequest) -> None:
    engine = request.getfixturevalue(name)
    call, stream = getattr(engine, method), getattr(engine, f"{method}_iter")
    sides: dict[str, Any] = {}
    for side in ("left", "right"):
        cut: list[bool] = []
        options = {"truncate": True, "max_length": 12, "truncation_side": side}
        sides[side] = call(TEXTS, truncated=cut, **options)
        assert cut == [True, False]
        streamed: list[bool] = []
        assert len(list(stream(TEXTS, truncated=streamed, **options))) == 2
        assert streamed == [True, False]
    later: list[bool] = []
    asyncio.run(getattr(engine, f"a{method}")(TEXTS, truncated=later, **options))
    assert later == [True, False]
    with pytest.raises(ValueError, match="the limit is 12"):
        call(TEXTS, max_length=12)


def test_lengths_of_a_score(cross_encoder: Engine, embedder: Engine, colbert: Engine) -> None:
    for engine in (cross_encoder, embedder, colbert):
        cut: list[bool] = []
        options: Any = {"truncate": True, "max_length": 9, "truncation_side": "left"}
        scores = engine.score("a", [LONG, "no"], truncated=cut, **options)
        assert cut == [True, False]
        pairs = [("a", LONG), ("a", "no")]
        np.testing.assert_allclose(scores, list(engine.score_iter(pairs, **options)), atol=1e-6)


@pytest.mark.parametrize(("name", "method"), METHODS)
def test_unknown_keyword(name: str, method: str, request: pytest.FixtureRequest) -> None:
    engine = request.getfixturevalue(name)
    for call in (
        getattr(engine, method),
        lambda *a, **k: list(getattr(engine, f"{method}_iter")(*a, **k)),
    ):
        with pytest.raises(InvalidOption, match=r"has no keyword 'truncat'; did you mean trunca"):
            call(["a"], truncat=True)


@pytest.mark.parametrize(
    ("name", "call", "param"),
    [
        ("classifier", lambda e: e.classify(["a"], prompt="bread "), "prompt"),
        ("classifier", lambda e: e.classify(["a"], output_dtype="binary"), "output_dtype"),
        ("classifier", lambda e: e.classify(["a"], normalize=False), "normalize"),
        ("embedder", lambda e: list(e.embed_iter(["a"], use_activation=False)), "use_activation"),
        ("embedder", lambda e: e.score("a", "b", use_activation=False), "use_activation"),
        ("cross_encoder", lambda e: e.score("a", "b", prompt="bread "), "prompt"),
        ("embedder", lambda e: e.encode(["a"], side="query"), "side"),
        ("classifier", lambda e: e.encode(["a"], normalize=True), "normalize"),
        ("cross_encoder", lambda e: e.reward(["a"], label=0), "label"),
        ("splade", lambda e: e.embed_sparse(["a"], dimensions=8), "dimensions"),
    ],
)
def test_keyword_of_another_task(
    name: str, call: Any, param: str, request: pytest.FixtureRequest
) -> None:
    with pytest.raises(InvalidOption, match=param) as caught:
        call(request.getfixturevalue(name))
    assert caught.value.param == param


def test_what_would_be_obeyed_is_named(embedder: Engine) -> None:
    with pytest.raises(InvalidOption) as caught:
        embedder.score("a", "b", use_activation=True)
    assert str(caught.value) == (
        "use_activation is True, which score of this model (embedding) does not obey; of such "
        "parameters it has: prompt_name, prompt"
    )


def test_hidden_states_like_vectors(embedder: Engine, sentence_transformer: Any) -> None:
    import torch

    (states,) = sentence_transformer.encode(["a river"], output_value="token_embeddings")
    states = torch.as_tensor(states)
    (found,) = embedder.encode("a river")
    np.testing.assert_allclose(found, states.numpy(), atol=1e-5)
    (cut,) = embedder.encode("a river", dimensions=8, normalize=True)
    wanted = torch.nn.functional.normalize(states[:, :8], dim=-1)
    np.testing.assert_allclose(cut, wanted.numpy(), atol=1e-5)


def test_pairs_are_read_alike(artifact: Callable[[str], Path]) -> None:
    engine = poolc.load(artifact("tiny_lm_reranker"))
    pairs: Any = [("bread", "salt and flour"), ("a river", "the old town")]
    texts = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    template = "{{ query }} or {{ document }}{{ instruction }}"
    for options in (
        {"instruction": "Find bread"},
        {"instruction": "Find", "template": template},
        {"max_query_length": 1, "max_document_length": 2},
    ):
        given: Any = options
        wanted = engine.score(*texts, **given)
        np.testing.assert_array_equal(engine.classify(pairs, **given).probs[:, 0], wanted)
        rewards: Any = engine.reward(pairs, use_activation=True, **given)
        np.testing.assert_array_equal(rewards, wanted)
    plain = engine.score(*texts)
    assert np.abs(engine.classify(pairs, instruction="Find bread").probs[:, 0] - plain).max() > 1e-4
    with pytest.raises(InvalidOption, match="instruction is what a score template is given"):
        poolc.load(artifact("tiny_cross_encoder")).classify(pairs, instruction="Find bread")
