"""Rewards of tokens and of steps, against NumPy and transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM, LlamaForSequenceClassification

from poolc.errors import InvalidOption, ParityError, RemoteCodeRefused
from poolc.runtime.engine import Engine
from poolc.runtime.heads import tokens
from poolc.runtime.outputs import Float32, Ragged
from poolc.spec import Activation, StepSpec
from tests.compiler.conftest import CompileHere, Recognise
from tests.compiler.decoders import STEP, llama, numpy_rewards, remote_reward, softmax

TEXTS = ["bread needs flour <extra_0> and salt <extra_0>", "a", "the river <extra_0> [PAD] [SEP]"]


@pytest.mark.parametrize("name", ["InternLM2ForRewardModel", "Qwen2ForRewardModel"])
def test_token_rewards(name: str, tmp_path: Path, compile_here: CompileHere) -> None:
    folder = remote_reward(tmp_path / "model", name)
    engine = Engine(compile_here(folder, trust_remote_code=True))
    rewards = engine.reward(TEXTS)
    assert isinstance(rewards, Ragged)
    for text, row in zip(TEXTS, rewards, strict=True):
        wanted = numpy_rewards(folder, np.array(engine.tokenize(text)))
        assert row.shape == wanted.shape
        assert np.allclose(row, wanted, atol=2e-5)
    assert engine.spec.use_activation is False
    assert engine.spec.activation is Activation.SIGMOID
    probs = engine.reward(TEXTS, use_activation=True)
    assert isinstance(probs, Ragged)
    assert np.allclose(probs.values, 1 / (1 + np.exp(-rewards.values)), atol=1e-6)


def test_process_rewards(tmp_path: Path, compile_here: CompileHere) -> None:
    folder = remote_reward(tmp_path / "model", "Qwen2ForProcessRewardModel")
    engine = Engine(compile_here(folder, trust_remote_code=True))
    tag = engine.tokenize("<extra_0>", add_special_tokens=False)[0]
    assert engine.spec.step == StepSpec(tag)
    assert engine.spec.origins["step"].startswith("tokenizer: <extra_0>")
    rewards = list(engine.reward(TEXTS))
    assert [len(row) for row in rewards] == [2, 0, 1]
    for text, row in zip(TEXTS, rewards, strict=True):
        ids = np.array(engine.tokenize(text))
        assert np.allclose(row, softmax(numpy_rewards(folder, ids)[ids == tag]), atol=1e-5)
    raw = engine.reward(TEXTS[0], step_tag_id=2, returned_token_ids=[1], use_activation=False)
    ids = np.array(engine.tokenize(TEXTS[0]))
    assert np.allclose(next(iter(raw)), numpy_rewards(folder, ids)[:1, 1:], atol=2e-5)
    with pytest.raises(
        InvalidOption, match=r"step_tag_id is 100000, which this model's vocabulary"
    ):
        engine.reward(TEXTS, step_tag_id=100_000)
    with pytest.raises(InvalidOption, match=r"returned_token_ids is \[7\]; this artifact computes"):
        engine.reward(TEXTS, returned_token_ids=[7])


def test_one_column_of_steps(tmp_path: Path, compile_here: CompileHere) -> None:
    folder = remote_reward(tmp_path / "model", "Qwen2ForProcessRewardModel")
    chosen = Engine(
        compile_here(folder, trust_remote_code=True, pooler_config={"returned_token_ids": [1]})
    )
    whole = Engine(compile_here(folder, trust_remote_code=True))
    ids = np.array(whole.tokenize(TEXTS[0]))
    tag = whole.tokenize("<extra_0>", add_special_tokens=False)[0]
    logits = torch.from_numpy(numpy_rewards(folder, ids)[ids == tag])
    # As vLLM: columns first, then softmax of several, and sigmoid of one.
    one = torch.sigmoid(logits[:, 1:]).numpy()
    np.testing.assert_allclose(chosen.reward(TEXTS[0])[0], one, atol=1e-5)
    np.testing.assert_allclose(whole.reward(TEXTS[0], returned_token_ids=[1])[0], one, atol=1e-5)
    both = chosen.reward(TEXTS[0], returned_token_ids=[0, 1])[0]
    np.testing.assert_allclose(both, torch.softmax(logits, -1).numpy(), atol=1e-5)
    assert chosen.spec.origins["activation"] == (
        "2 column(s) of logits; of one selected column: sigmoid"
    )


def test_gate_sees_what_is_made_of_logits(
    tmp_path: Path, compile_here: CompileHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = remote_reward(tmp_path / "model", "Qwen2ForProcessRewardModel")
    monkeypatch.setattr(tokens, "activate", lambda logits, kind: np.ones_like(logits))
    with pytest.raises(ParityError, match=r"answers of '.*differs from transformers"):
        compile_here(folder, trust_remote_code=True, pooler_config={"returned_token_ids": [1]})


def test_steps_of_a_language_model(tmp_path: Path, compile_here: CompileHere) -> None:
    folder = llama(tmp_path / "model", LlamaForCausalLM)
    engine = Engine(compile_here(folder, pooler_config=STEP))
    rewards = engine.reward(TEXTS)
    model = LlamaForCausalLM.from_pretrained(folder)
    for text, row in zip(TEXTS, rewards, strict=True):
        ids = torch.tensor([engine.tokenize(text)])
        with torch.inference_mode():
            logits = model(ids).logits[0, :, [40, 17]].softmax(-1)
        assert np.allclose(row, logits[ids[0] == 3].numpy(), atol=1e-5)


@pytest.mark.parametrize("pad", [None, 0])
def test_sequence_rewards(pad: int | None, tmp_path: Path, compile_here: CompileHere) -> None:
    folder = llama(tmp_path / "m", LlamaForSequenceClassification, num_labels=1, pad_token_id=pad)
    engine = Engine(compile_here(folder))
    rewards: Float32 | Ragged = engine.reward(TEXTS)
    model = LlamaForSequenceClassification.from_pretrained(folder)
    with torch.inference_mode():
        wanted = [model(torch.tensor([engine.tokenize(t)])).logits.item() for t in TEXTS]
    assert np.allclose(np.asarray(rewards), wanted, atol=1e-5)


@pytest.mark.parametrize("said", ["softmax", "use_activation"])
def test_sequence_rewards_obey_the_pooler_config(
    said: str, tmp_path: Path, compile_here: CompileHere
) -> None:
    folder = llama(tmp_path / "m", LlamaForSequenceClassification, num_labels=1, pad_token_id=0)
    engine = Engine(compile_here(folder, pooler_config={said: True}))
    model = LlamaForSequenceClassification.from_pretrained(folder)
    with torch.inference_mode():
        raw = [model(torch.tensor([engine.tokenize(t)])).logits for t in TEXTS]
    probs = torch.sigmoid(torch.cat(raw))[:, 0].numpy()
    np.testing.assert_allclose(np.asarray(engine.reward(TEXTS)), probs, atol=1e-5)
    asked = np.asarray(engine.reward(TEXTS, use_activation=False))
    np.testing.assert_allclose(asked, torch.cat(raw)[:, 0].numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step_tag_id": 9999}, "step_tag_id is 9999, which the tokenizer does not have"),
        ({"returned_token_ids": None}, "needs returned_token_ids"),
        ({"normalize": True}, "normalize belongs to embedding models"),
        ({"activation": "softmax", "returned_token_ids": [7]}, "softmax, which says 1 of every"),
        ({"pooling_type": "ALL"}, "ALL contradict each other|ALL keeps every token"),
    ],
)
def test_step_refuses(changes: Any, message: str, tmp_path: Path, recognise: Recognise) -> None:
    folder = llama(tmp_path / "model", LlamaForCausalLM)
    convert = "embed" if "pooling_type" in changes else None
    with pytest.raises(InvalidOption, match=message):
        recognise(folder, convert=convert, pooler_config={**STEP, **changes})


def test_own_code_needs_trust(tmp_path: Path, recognise: Recognise) -> None:
    folder = remote_reward(tmp_path / "model", "Qwen2ForRewardModel")
    with pytest.raises(RemoteCodeRefused, match=r"Qwen2ForRewardModel of config\.json"):
        recognise(folder)
