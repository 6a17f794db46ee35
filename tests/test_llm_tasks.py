"""LLM.encode(pooling_task=...) on every kind of model, and what it says where it cannot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize
from transformers import AutoModel, AutoModelForTokenClassification

from poolc import LLM, PoolingParams
from poolc.errors import InvalidOption, UnsupportedTask
from poolc.llm.tasks import task_named
from poolc.runtime.engine import Engine
from poolc.runtime.outputs import Ragged
from poolc.spec import Kind, Task
from tests.compiler.decoders import numpy_rewards
from tests.models import HIDDEN

TEXTS = ["the quick brown fox jumps", "a", "bread needs flour"]


@pytest.fixture(scope="module")
def tagger_llm(artifact: Callable[[str], Path]) -> LLM:
    return LLM(artifact("tiny_tagger"))


@pytest.fixture(scope="module")
def reward_llm(source: Callable[[str], Path]) -> LLM:
    return LLM(str(source("tiny_internlm2_reward")), trust_remote_code=True)


@pytest.fixture(scope="module")
def classify_llm(tiny_classifier: Path) -> LLM:
    return LLM(tiny_classifier)


@pytest.mark.parametrize("activation", [None, False])
def test_token_classify(tagger_llm: LLM, tagger: Engine, activation: bool | None) -> None:
    params = PoolingParams(use_activation=activation)
    outputs = tagger_llm.encode(TEXTS, params, pooling_task="token_classify")
    wanted = tagger.classify_tokens(TEXTS, use_activation=activation)
    assert isinstance(wanted, Ragged)
    for output, row in zip(outputs, wanted, strict=True):
        assert output.outputs.data.shape == (len(output.prompt_token_ids), len(tagger.spec.labels))
        assert np.array_equal(output.outputs.data, row)


def test_token_classify_from_params(tagger_llm: LLM) -> None:
    (one,) = tagger_llm.encode(TEXTS[0], PoolingParams(task="token_classify"))
    (two,) = tagger_llm.encode(TEXTS[0], pooling_task="token_classify")
    assert np.array_equal(one.outputs.data, two.outputs.data)


def test_classify(classify_llm: LLM, classifier: Engine) -> None:
    outputs = classify_llm.encode(TEXTS, pooling_task="classify")
    found = [output.outputs.data for output in outputs]
    assert np.array_equal(found, classifier.classify(TEXTS).probs)


@pytest.mark.parametrize("task", ["reward", "token_classify"])
def test_reward(reward_llm: LLM, task: str) -> None:
    outputs = reward_llm.encode(TEXTS, pooling_task=task)
    for output, row in zip(outputs, reward_llm.engine.reward(TEXTS), strict=True):
        assert np.array_equal(output.outputs.data, row)


def test_reward_of_chosen_tokens(reward_llm: LLM) -> None:
    ids = reward_llm.engine.tokenize(TEXTS[0])
    (every,) = reward_llm.encode(TEXTS[0], pooling_task="reward")
    params = PoolingParams(step_tag_id=ids[1])
    (steps,) = reward_llm.encode(TEXTS[0], params, pooling_task="reward")
    assert np.array_equal(steps.outputs.data, every.outputs.data[np.array(ids) == ids[1]])


def test_hidden_states_of_every_model(tagger_llm: LLM, reward_llm: LLM, classify_llm: LLM) -> None:
    for llm in (tagger_llm, reward_llm, classify_llm):
        (output,) = llm.encode(TEXTS[0], pooling_task="token_embed")
        assert np.array_equal(output.outputs.data, llm.engine.encode(TEXTS[0])[0])


Call = Callable[[LLM], Any]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda llm: llm.classify(TEXTS),
            "this model does not support classify; it supports: classify_tokens, encode: "
            'use LLM.encode(..., pooling_task="token_classify")',
        ),
        (
            lambda llm: llm.embed(TEXTS),
            "this model does not support embed; it supports: classify_tokens, encode: "
            'use LLM.encode(..., pooling_task="token_classify"); or '
            'LLM(model, convert="embed") makes an embedding model of it',
        ),
        (
            lambda llm: llm.reward(TEXTS),
            "this model does not support reward; it supports: classify_tokens, encode: "
            'use LLM.encode(..., pooling_task="token_classify"); or '
            'LLM(model, convert="reward") makes a reward model of one without labels',
        ),
        (
            lambda llm: llm.encode(TEXTS, pooling_task="score"),
            "this model does not support score; it supports: classify_tokens, encode: "
            'use LLM.encode(..., pooling_task="token_classify")',
        ),
    ],
)
def test_tagger_refuses(tagger_llm: LLM, call: Call, message: str) -> None:
    with pytest.raises(UnsupportedTask) as caught:
        call(tagger_llm)
    assert str(caught.value) == message


@pytest.mark.parametrize("task", ["embed", "classify", "score"])
def test_reward_model_refuses(reward_llm: LLM, task: str) -> None:
    with pytest.raises(UnsupportedTask, match=r"it supports: reward, encode: use LLM\.reward"):
        reward_llm.encode(TEXTS, pooling_task=task)


def test_a_prompt_has_no_score_of_three_labels(classify_llm: LLM) -> None:
    with pytest.raises(UnsupportedTask, match=r"one label; this one has 3: use LLM\.score"):
        classify_llm.encode(TEXTS, pooling_task="score")


def test_classifier_labels_no_tokens(classify_llm: LLM) -> None:
    with pytest.raises(UnsupportedTask, match=r"not support classify_tokens.*use LLM\.classify"):
        classify_llm.encode(TEXTS, pooling_task="token_classify")


def test_unknown_task(tagger_llm: LLM) -> None:
    with pytest.raises(InvalidOption) as caught:
        tagger_llm.encode(TEXTS, pooling_task="tag")
    assert str(caught.value) == (
        "pooling_task is 'tag'; allowed: embed, classify, score, reward, token_embed, "
        "token_classify, encode"
    )


def test_params_of_another_task(tagger_llm: LLM) -> None:
    with pytest.raises(InvalidOption, match="task is 'classify' in a call of classify_tokens"):
        tagger_llm.encode(TEXTS, PoolingParams(task="classify"), pooling_task="token_classify")


def test_names_of_a_reward_model(reward_llm: LLM) -> None:
    spec = reward_llm.engine.spec
    assert spec.kind is Kind.REWARD
    assert task_named("token_classify", spec) is Task.REWARD
    assert task_named("encode", spec) is Task.REWARD
    assert task_named("token_embed", spec) is Task.ENCODE


@pytest.fixture(scope="module")
def embed_llm(tiny_embedder: Path) -> LLM:
    return LLM(tiny_embedder)


@pytest.mark.parametrize("task", ["encode", None])
def test_encode_of_a_reward_model_is_its_reward(
    reward_llm: LLM, source: Callable[[str], Path], task: str | None
) -> None:
    (output,) = reward_llm.encode(TEXTS[0], pooling_task=task)
    wanted = numpy_rewards(source("tiny_internlm2_reward"), np.array(output.prompt_token_ids))
    np.testing.assert_allclose(output.outputs.data, wanted, atol=2e-5)


def test_encode_of_a_token_classifier_is_its_labels(
    tagger_llm: LLM, source: Callable[[str], Path]
) -> None:
    model = AutoModelForTokenClassification.from_pretrained(source("tiny_tagger"))
    for activated in (True, False):
        params = PoolingParams(use_activation=activated, task="encode")
        (output,) = tagger_llm.encode(TEXTS[0], params)
        with torch.inference_mode():
            logits = model(torch.tensor([output.prompt_token_ids])).logits[0]
        wanted = logits.softmax(-1) if activated else logits
        np.testing.assert_allclose(output.outputs.data, wanted.numpy(), atol=1e-5)


def test_token_embed_of_an_embedding_model(embed_llm: LLM, source: Callable[[str], Path]) -> None:
    """vLLM's token head: each row cut, then normalised, as the vector of a text."""
    model = AutoModel.from_pretrained(source("tiny_embedder"))
    (raw,) = embed_llm.encode(TEXTS[0], pooling_task="encode")
    with torch.inference_mode():
        states = model(torch.tensor([raw.prompt_token_ids])).last_hidden_state[0]
    np.testing.assert_allclose(raw.outputs.data, states.numpy(), atol=1e-5)
    for given, wanted in (
        ({}, normalize(states, dim=-1)),
        ({"dimensions": 8}, normalize(states[:, :8], dim=-1)),
        ({"use_activation": False}, states),
        ({"normalize": False, "dimensions": 8}, states[:, :8]),
    ):
        options: Any = given
        params = PoolingParams(**options)
        (output,) = embed_llm.encode(TEXTS[0], params, pooling_task="token_embed")
        np.testing.assert_allclose(output.outputs.data, wanted.numpy(), atol=1e-5)


def test_sparse_weights_of_tokens(
    artifact: Callable[[str], Path], source: Callable[[str], Path]
) -> None:
    llm, folder = LLM(artifact("tiny_bge_m3")), source("tiny_bge_m3")
    model = AutoModel.from_pretrained(folder)
    head = torch.load(folder / "sparse_linear.pt", weights_only=True)
    for output in llm.encode(TEXTS, pooling_task="token_classify"):
        with torch.inference_mode():
            states = model(torch.tensor([output.prompt_token_ids])).last_hidden_state[0]
        weights = torch.relu(states @ head["weight"].T + head["bias"])[1:-1, 0]
        np.testing.assert_allclose(output.outputs.data, weights.numpy(), atol=1e-5)


def test_task_of_a_list_of_params(embed_llm: LLM) -> None:
    (one,) = embed_llm.encode([TEXTS[0]], PoolingParams(task="embed"))
    (two,) = embed_llm.encode([TEXTS[0]], [PoolingParams(task="embed")])
    assert one.outputs.data.shape == (HIDDEN,)
    assert np.array_equal(one.outputs.data, two.outputs.data)
    with pytest.raises(InvalidOption, match=r"name several tasks: .*make one call for each"):
        embed_llm.encode(TEXTS[:2], [PoolingParams(task="embed"), PoolingParams(task="encode")])


def test_softmax_of_a_reward_model_without_a_head(source: Callable[[str], Path]) -> None:
    llm = LLM(source("tiny_embedder"), convert="reward")
    for name in ("softmax", "use_activation"):
        switch: Any = {name: True}
        with pytest.raises(InvalidOption, match=r"which reward of this model .* does not obey"):
            llm.reward(TEXTS, pooling_params=PoolingParams(**switch))


def test_score_of_several_labels(classify_llm: LLM) -> None:
    with pytest.raises(UnsupportedTask) as caught:
        classify_llm.score("a", TEXTS)
    assert str(caught.value) == (
        "LLM.score is for models with one label; this one has 3 (negative, neutral, positive): "
        "LLM.classify gives all of them of a text, and poolc.load(model).score(..., label=...) one "
        "of them of a pair"
    )
