"""Rerankers made from a language model: LogitScore modules, and prompts of published models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from poolc.runtime.request import Params
from poolc.spec import Task
from tests.compiler import logit_scores
from tests.matrix.checkpoints.base import Checkpoint, compared, worst
from tests.matrix.compare import PAIRS, Measured
from tests.matrix.families import FAMILIES
from tests.models import save_model, write_json
from tests.runtime.prompts import GEMMA, MXBAI, QWEN3, WEB_SEARCH

if TYPE_CHECKING:
    from poolc.runtime.engine import Engine

_LENGTH = 1024  # tokens; these tokenizers make 200 and more of a template
# Of the random weights: with larger ones hidden states of hundreds of tokens lose digits in fp32.
_SCALE = 0.1
_ANSWERS = [300, 301]  # two tokens that every tokenizer of the matrix has
_TWO_WAY = {"method": "from_2_way_softmax"}


def _logit_score(root: Path) -> Path:
    logit_scores.save(root / "model", prompts={"find": "Find"}, default_prompt_name="find")
    return root / "model"


def _measure_logit_score(folder: Path, engine: Engine) -> Measured:
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(folder), device="cpu", local_files_only=True)
    pairs = logit_scores.PAIRS
    longest = max(engine.prepare(Task.SCORE, pairs, Params()).lengths)
    logits = [model.predict([pair], activation_fn=_same)[0] for pair in pairs]
    return _both("sentence-transformers CrossEncoder", engine, pairs, logits, longest)


def _same(scores: Any) -> Any:
    return scores


def _gemma(folder: Path) -> Any:
    """Gemma 1, of Gemma 2's sizes and tokenizer."""
    from transformers import GemmaConfig

    config = FAMILIES["gemma2"].config(folder)
    sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "head_dim")
    others = ("num_key_value_heads", "intermediate_size", "pad_token_id", "bos_token_id")
    return GemmaConfig(
        **{name: getattr(config, name) for name in (*sizes, *others, "eos_token_id")}
    )


def _language_model(config_of: Callable[[Path], Any], **settings: Any) -> Callable[[Path], Path]:
    """A causal language model whose config.json names the tokens that answer."""

    def build(root: Path) -> Path:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = root / "model"
        folder.mkdir()
        config = config_of(folder)
        config.update({"max_position_embeddings": _LENGTH})
        save_model(AutoModelForCausalLM.from_config(config), folder, seed=8, scale=_SCALE)
        words = AutoTokenizer.from_pretrained(folder)
        answers = _ANSWERS if settings.get("method") != "no_post_processing" else _ANSWERS[1:]
        tokens = words.convert_ids_to_tokens(answers)
        _edit(folder / "config.json", classifier_from_token=tokens, **settings)
        _edit(folder / "tokenizer_config.json", model_max_length=_LENGTH)
        return folder

    return build


def _edit(path: Path, **changes: Any) -> None:
    write_json(path, {**json.loads(path.read_text(encoding="utf-8")), **changes})


def _prompted(prompt: str, *, two: bool = True) -> Callable[[Path, Engine], Measured]:
    """Compare with the whole head's logits at the last token of the prompts written out."""

    def measure(folder: Path, engine: Engine) -> Measured:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
        expected, longest = [], 0
        for pair in PAIRS:
            ids = tokenizer(prompt.format(*pair), return_tensors="pt")["input_ids"]
            with torch.inference_mode():
                false, true = model(input_ids=ids).logits[0, -1, _ANSWERS].tolist()
            expected.append(true - false if two else true)
            longest = max(longest, ids.shape[1])
        return _both("transformers", engine, PAIRS, expected, longest)

    return measure


def _both(
    reference: str, engine: Engine, pairs: list[Any], logits: list[float], longest: int
) -> Measured:
    """Compare logits of the pairs, and their probabilities."""
    probs = [1 / (1 + np.exp(-logit)) for logit in logits]
    raw = _scores(engine, use_activation=False)
    return worst(
        compared(reference, raw, pairs, logits, longest=longest),
        compared(reference, _scores(engine), pairs, probs, longest=longest),
    )


def _scores(engine: Engine, **options: Any) -> Callable[[list[Any]], Any]:
    def ask(pairs: list[Any]) -> Any:
        left, right = (list(side) for side in zip(*pairs, strict=True))
        return engine.score(left, right, **options)

    return ask


CHECKPOINTS = (
    Checkpoint(
        "logit-score",
        "LogitScore module and chat template",
        "rerankers that CrossEncoder makes of a language model",
        _logit_score,
        _measure_logit_score,
    ),
    Checkpoint(
        "qwen3-reranker",
        "score template qwen3-reranker",
        "Qwen/Qwen3-Reranker-0.6B",
        _language_model(FAMILIES["qwen3"].config, is_original_qwen3_reranker=True),
        _prompted(QWEN3.replace("{}", WEB_SEARCH, 1)),
    ),
    Checkpoint(
        "mxbai-rerank-v2",
        "score template mxbai-rerank-v2",
        "mixedbread-ai/mxbai-rerank-base-v2",
        _language_model(FAMILIES["qwen2"].config, **_TWO_WAY),
        _prompted(MXBAI.replace("{}", "", 1)),
        {"score_template": "mxbai-rerank-v2"},
    ),
    Checkpoint(
        "bge-reranker-v2-gemma",
        "score template bge-reranker-v2-gemma",
        "BAAI/bge-reranker-v2-gemma",
        _language_model(_gemma, method="no_post_processing"),
        _prompted(GEMMA, two=False),
        {"score_template": "bge-reranker-v2-gemma"},
    ),
)
