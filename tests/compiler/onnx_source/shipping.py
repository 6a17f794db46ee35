"""Model folders that ship ONNX, laid out as optimum and Sentence Transformers do."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, AutoModelForSequenceClassification

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class _Chosen(nn.Module):
    """One output of a model, over positional inputs."""

    def __init__(self, model: nn.Module, pooled: bool) -> None:
        super().__init__()
        self.model, self.pooled = model, pooled

    def forward(self, *given: torch.Tensor) -> Any:
        found = self.model(**dict(zip(_INPUTS, given, strict=True)))
        if "logits" in found:
            return found.logits
        hidden = found.last_hidden_state
        if not self.pooled:
            return hidden
        mask = given[1].unsqueeze(-1).to(hidden.dtype)
        return nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)


def ship(
    folder: Path,
    file: str = "onnx/model.onnx",
    *,
    opset: int = 14,
    pooled: bool = False,
    dynamic: bool = True,
) -> Path:
    """Export the model of ``folder`` into it with torch's older exporter, as optimum does."""
    classifies = "ForSequenceClassification" in (folder / "config.json").read_text()
    auto = AutoModelForSequenceClassification if classifies else AutoModel
    model = auto.from_pretrained(folder, attn_implementation="eager").eval()
    output = "logits" if classifies else "sentence_embedding" if pooled else "last_hidden_state"
    axes = {name: {0: "batch_size", 1: "sequence_length"} for name in _INPUTS}
    axes[output] = {0: "batch_size"} if classifies or pooled else axes["input_ids"]
    (folder / file).parent.mkdir(exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Chosen(model, pooled),
            tuple(torch.ones((2, 8), dtype=torch.int64) for _ in _INPUTS),
            folder / file,
            input_names=list(_INPUTS),
            output_names=[output],
            dynamic_axes=axes if dynamic else None,
            opset_version=opset,
            dynamo=False,
        )
    return folder
