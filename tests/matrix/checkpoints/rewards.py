"""Reward models: of tokens, of steps, of whole sequences."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.compiler.decoders import STEP, llama, numpy_rewards, remote_reward, softmax
from tests.matrix import compare
from tests.matrix.checkpoints.base import UPSTREAM_NOT_RUN, Checkpoint, compared
from tests.matrix.families import FAMILIES
from tests.matrix.words import LIMIT
from tests.models import save_model

if TYPE_CHECKING:
    from poolc.runtime.engine import Engine

_NUMPY = "NumPy forward from the state dict, float64"
_TEXTS = [*compare.TEXTS, "flour <extra_0> salt <extra_0>", "the river <extra_0> [PAD] [SEP]"]
_TAG = "<extra_0>"


def _remote(architecture: str) -> Callable[[Path], Path]:
    return lambda root: remote_reward(root / "model", architecture)


def _language_model(root: Path) -> Path:
    from transformers import LlamaForCausalLM

    return llama(root / "model", LlamaForCausalLM)


def _sequence(family: str) -> Callable[[Path], Path]:
    """A class with one output and no word of an activation."""

    def build(root: Path) -> Path:
        from transformers import AutoModelForSequenceClassification

        folder = root / "model"
        folder.mkdir()
        config = FAMILIES[family].config(folder)
        config.update({"id2label": {0: "LABEL_0"}})
        save_model(AutoModelForSequenceClassification.from_config(config), folder, seed=9)
        return folder

    return build


def _of_tokens(folder: Path, engine: Engine) -> compare.Measured:
    return _measured(engine, folder, lambda ids: numpy_rewards(folder, ids), _NUMPY)


def _of_steps(folder: Path, engine: Engine) -> compare.Measured:
    (tag,) = engine.tokenize(_TAG, add_special_tokens=False)

    def forward(ids: Any) -> Any:
        return softmax(numpy_rewards(folder, ids)[ids == tag])

    return _measured(engine, folder, forward, _NUMPY)


def _of_answers(folder: Path, engine: Engine) -> compare.Measured:
    """Probabilities of the answers that the options name, at the tokens that they name."""
    from transformers import LlamaForCausalLM

    logits = _logits(LlamaForCausalLM, folder)

    def forward(ids: Any) -> Any:
        return softmax(logits(ids)[:, STEP["returned_token_ids"]][ids == STEP["step_tag_id"]])

    return _measured(engine, folder, forward, "transformers")


def _of_sequences(folder: Path, engine: Engine) -> compare.Measured:
    from transformers import AutoModelForSequenceClassification

    logits = _logits(AutoModelForSequenceClassification, folder)
    return _measured(engine, folder, lambda ids: logits(ids)[0], "transformers")


def _logits(auto: Any, folder: Path) -> Callable[[Any], Any]:
    import torch

    model = auto.from_pretrained(folder, attn_implementation="eager").eval()

    def run(ids: Any) -> Any:
        with torch.inference_mode():
            return model(input_ids=torch.tensor([ids.tolist()])).logits[0].numpy()

    return run


def _measured(
    engine: Engine, folder: Path, forward: Callable[[Any], Any], reference: str
) -> compare.Measured:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    ids = [np.array(tokenizer(t, truncation=True, max_length=LIMIT)["input_ids"]) for t in _TEXTS]
    return compared(
        reference,
        lambda texts: engine.reward(texts, truncate=True),
        _TEXTS,
        [forward(row) for row in ids],
        longest=max(map(len, ids)),
    )


CHECKPOINTS = (
    Checkpoint(
        "internlm2-reward",
        "InternLM2, a reward a token",
        "internlm/internlm2-1_8b-reward (and 7b, 20b)",
        _remote("InternLM2ForRewardModel"),
        _of_tokens,
        {"trust_remote_code": True},
        UPSTREAM_NOT_RUN,
    ),
    Checkpoint(
        "qwen2-math-rm",
        "Qwen2.5-Math-RM, a reward a token",
        "Qwen/Qwen2.5-Math-RM-72B",
        _remote("Qwen2ForRewardModel"),
        _of_tokens,
        {"trust_remote_code": True},
        UPSTREAM_NOT_RUN,
    ),
    Checkpoint(
        "qwen2-math-prm",
        "Qwen2.5-Math-PRM, a reward a step",
        "Qwen/Qwen2.5-Math-PRM-7B (and 72B)",
        _remote("Qwen2ForProcessRewardModel"),
        _of_steps,
        {"trust_remote_code": True},
        UPSTREAM_NOT_RUN,
    ),
    Checkpoint(
        "math-shepherd",
        "language model (Llama) with step_tag_id and returned_token_ids",
        "peiyi9979/math-shepherd-mistral-7b-prm",
        _language_model,
        _of_answers,
        {"pooler_config": STEP},
    ),
    Checkpoint(
        "sequence-reward-llama",
        "LlamaForSequenceClassification, one output, as a reward",
        "Skywork/Skywork-Reward-Llama-3.1-8B-v0.2",
        _sequence("llama"),
        _of_sequences,
    ),
    Checkpoint(
        "sequence-reward-qwen2",
        "Qwen2ForSequenceClassification, one output, as a reward",
        "rewards trained on Qwen2 and Qwen2.5 with one output",
        _sequence("qwen2"),
        _of_sequences,
    ),
    Checkpoint(
        "sequence-reward-gemma2",
        "Gemma2ForSequenceClassification, one output, as a reward",
        "Skywork/Skywork-Reward-Gemma-2-27B-v0.2",
        _sequence("gemma2"),
        _of_sequences,
    ),
)
