"""LLM.score with templates, instructions and budgets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from poolc import LLM, PoolingParams, api
from poolc.errors import InvalidOption
from poolc.model_cache.score_templates import shipped_text

QUERY, DOCUMENTS = "a river in the town", ["bread needs flour and salt", "a river runs"]
OWN = "{{ query }} / {{ document }}"


@pytest.fixture(scope="module")
def rerank_llm(artifact: Callable[[str], Path]) -> LLM:
    return LLM(model=str(artifact("tiny_lm_reranker")))


def scores(outputs: Any) -> list[float]:
    return [output.outputs.score for output in outputs]


def test_score_with_extra_kwargs(rerank_llm: LLM) -> None:
    params = PoolingParams(
        extra_kwargs={
            "max_tokens_per_query": 2,
            "max_tokens_per_doc": 3,
            "chat_template_kwargs": {"instruction": "Find bread"},
        }
    )
    got = scores(rerank_llm.score(QUERY, DOCUMENTS, pooling_params=params))
    wanted = rerank_llm.engine.score(
        QUERY, DOCUMENTS, instruction="Find bread", max_query_length=2, max_document_length=3
    )
    assert got == pytest.approx(wanted.tolist())
    off = PoolingParams(extra_kwargs={"max_tokens_per_query": 0, "max_tokens_per_doc": None})
    plain = rerank_llm.engine.score(QUERY, DOCUMENTS).tolist()
    assert scores(rerank_llm.score(QUERY, DOCUMENTS, pooling_params=off)) == pytest.approx(plain)
    both = scores(rerank_llm.score(QUERY, DOCUMENTS, pooling_params=[params, off]))
    assert both == pytest.approx([got[0], plain[1]])


def test_score_with_a_chat_template(rerank_llm: LLM, tmp_path: Path) -> None:
    path = tmp_path / "own.jinja"
    path.write_text(OWN)
    wanted = rerank_llm.engine.score(QUERY, DOCUMENTS, template=OWN).tolist()
    for given in (OWN, path, str(path)):
        assert scores(rerank_llm.score(QUERY, DOCUMENTS, chat_template=given)) == wanted
    with pytest.raises(InvalidOption, match="chat_template is 'nothing', which is neither a file"):
        rerank_llm.score(QUERY, DOCUMENTS, chat_template="nothing")


def test_constructor_compiles_with_the_chat_template(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    def load(model: Any, **options: Any) -> Any:
        seen.update(options)
        raise InvalidOption("seen")

    monkeypatch.setattr(api, "load", load)
    with pytest.raises(InvalidOption, match="seen"):
        LLM("someone/reranker", chat_template="mxbai-rerank-v2")
    options = api.make_options(**seen)
    assert options.score_template == shipped_text("mxbai-rerank-v2")


def test_constructor_over_an_artifact(rerank_llm: LLM) -> None:
    folder = str(rerank_llm.engine.artifact.path)
    assert LLM(folder, chat_template="qwen3-reranker").engine.spec.template
    with pytest.raises(InvalidOption, match="score_template cannot change a compiled artifact"):
        LLM(folder, chat_template=OWN)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ([1], "extra_kwargs is list; allowed: a dict"),
        ({"max_tokens_per_docs": 1}, "'max_tokens_per_docs', .*; did you mean max_tokens_per_doc"),
        ({"max_tokens_per_doc": -1}, "max_tokens_per_doc is -1; allowed: a number of tokens"),
        ({"max_tokens_per_query": "5"}, "max_tokens_per_query is '5'"),
        ({"chat_template_kwargs": {"tools": []}}, "chat_template_kwargs has 'tools'"),
        ({"chat_template_kwargs": "x"}, "chat_template_kwargs is str; allowed: a dict"),
    ],
)
def test_extra_kwargs_refused(extra: Any, message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        PoolingParams(extra_kwargs=extra)


def test_extra_kwargs_of_another_task(rerank_llm: LLM) -> None:
    params = PoolingParams(extra_kwargs={"max_tokens_per_doc": 3})
    with pytest.raises(InvalidOption, match="prompt 0: extra_kwargs are about the pairs of score"):
        rerank_llm.classify("a", pooling_params=params)
    big = PoolingParams(extra_kwargs={"max_tokens_per_doc": 320})
    with pytest.raises(InvalidOption, match="max_document_length is 320; allowed: 1 to 319"):
        rerank_llm.score("a", "a", pooling_params=big)
