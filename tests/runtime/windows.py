"""Windows of long texts and their mean, by sentence-transformers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from poolc.runtime.outputs import Float32


def by_hand(reference: Any, text: str, window: int, prompt: str = "") -> tuple[Float32, Float32]:
    """Embed windows with sentence-transformers; return their weighted mean, and the mean of all
    their token vectors."""
    tokenizer = reference.tokenizer
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    first = tokenizer(prompt, add_special_tokens=False)["input_ids"] if prompt else []
    room = window - 2 - len(first)
    vectors, sizes, tokens = [], [], []
    for start in range(0, len(ids), room):
        part = [tokenizer.cls_token_id, *first, *ids[start : start + room], tokenizer.sep_token_id]
        state = {
            "input_ids": torch.tensor([part]),
            "attention_mask": torch.ones(1, len(part), dtype=torch.int64),
            "token_type_ids": torch.zeros(1, len(part), dtype=torch.int64),
        }
        with torch.inference_mode():
            for module in list(reference)[:2]:  # Transformer, Pooling
                state = module(state)
        vectors.append(state["sentence_embedding"][0].numpy())
        tokens.append(state["token_embeddings"][0].numpy())
        sizes.append(len(part))
    return np.average(vectors, axis=0, weights=sizes), np.concatenate(tokens).mean(axis=0)
