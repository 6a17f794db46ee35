"""Rerankers with a LogitScore module, as Sentence Transformers saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sentence_transformers import CrossEncoder
from sentence_transformers.base.modules.transformer import Transformer
from sentence_transformers.cross_encoder.modules.logit_score import LogitScore
from transformers import AutoTokenizer

from tests.compiler.folders import causal

LENGTH = 256
TEMPLATE = (
    "{% for message in messages %}\n"
    "{% if message.role == 'system' %}{{ message.content }}\n{% endif %}\n"
    "{% if message['role'] == 'query' %}[CLS]the query {{ message['content'] }}{% endif %}\n"
    "{% if message['role'] == 'document' %} the document {{ message['content'] }}{% endif %}\n"
    "{% endfor %}\n"
    "{% if add_generation_prompt %} good or {{ word }}{% endif %}{% if tools %}tools{% endif %}"
)
VALUES = {"add_generation_prompt": True, "word": "bad"}
PAIRS = [
    ("a river", "the river runs through the old town and under seven bridges"),
    ("bread", "a"),
    ("how do I reset my password", "東京の天気は晴れ"),
]


def save(folder: Path, **settings: Any) -> CrossEncoder:
    """Save a reranker as Sentence Transformers does; return it."""
    source = causal(folder.with_name(f"{folder.name}_lm"), max_position_embeddings=LENGTH)
    tokenizer = AutoTokenizer.from_pretrained(source, model_max_length=LENGTH)
    tokenizer.chat_template = settings.pop("template", TEMPLATE)
    tokenizer.save_pretrained(source)
    good, bad = tokenizer.convert_tokens_to_ids(["good", "bad"])
    score = LogitScore(good, bad if settings.pop("two", True) else None)
    given = {"processing_kwargs": {"chat_template": settings.pop("values", VALUES)}}
    reader = Transformer(str(source), transformer_task="text-generation", **given)
    encoder = CrossEncoder(modules=[reader, score], device="cpu", **settings)
    encoder.save_pretrained(str(folder))
    return encoder
