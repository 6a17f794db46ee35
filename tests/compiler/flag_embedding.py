"""BGE-M3 as FlagEmbedding computes it, over transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import linear, normalize
from transformers import AutoTokenizer, XLMRobertaModel


class FlagEmbedding:
    """A folder's dense vector, lexical weights and token vectors, one text at a time."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = XLMRobertaModel.from_pretrained(folder).eval()
        self._heads = {
            name: torch.load(folder / f"{name}_linear.pt") for name in ("colbert", "sparse")
        }
        special = ("cls", "eos", "pad", "unk")
        self._dropped = {getattr(self.tokenizer, f"{name}_token_id") for name in special}

    def __call__(self, text: str) -> tuple[Any, dict[int, float], Any]:
        inputs = self.tokenizer(text, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            hidden = self._model(**inputs).last_hidden_state
            weights = torch.relu(linear(hidden, **self._heads["sparse"]))[0, :, 0]
            vectors = normalize(linear(hidden[0, 1:], **self._heads["colbert"]), dim=-1)
        lexical = self._lexical(weights, inputs["input_ids"][0].tolist())
        return normalize(hidden[0, 0], dim=-1).numpy(), lexical, vectors.numpy()

    def _lexical(self, weights: Any, ids: list[int]) -> dict[int, float]:
        """``_process_token_weights``."""
        result: dict[int, float] = {}
        for weight, token_id in zip(weights.tolist(), ids, strict=True):
            if token_id not in self._dropped and weight > 0:
                result[token_id] = max(weight, result.get(token_id, 0.0))
        return result
