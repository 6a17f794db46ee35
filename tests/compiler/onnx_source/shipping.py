"""Model folders that ship ONNX, laid out as optimum and Sentence Transformers do."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
GRAPH = "onnx/model.onnx"
_AUTO: dict[str, Any] = {
    "ForSequenceClassification": AutoModelForSequenceClassification,
    "ForTokenClassification": AutoModelForTokenClassification,
    "ForMaskedLM": AutoModelForMaskedLM,
}


class _Chosen(nn.Module):
    """One output of a model, over positional inputs."""

    def __init__(self, model: nn.Module, names: Sequence[str], pooled: bool) -> None:
        super().__init__()
        self.model, self.names, self.pooled = model, names, pooled

    def forward(self, *given: torch.Tensor) -> Any:
        found = self.model(**dict(zip(self.names, given, strict=True)))
        if "logits" in found:
            return found.logits
        hidden = found.last_hidden_state
        if not self.pooled:
            return hidden
        mask = given[1].unsqueeze(-1).to(hidden.dtype)
        return nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)


def ship(
    folder: Path,
    file: str = GRAPH,
    *,
    opset: int = 14,
    pooled: bool = False,
    fixed: Sequence[int] = (),
    inputs: Sequence[str] = INPUTS,
    output: str | None = None,
    dtype: torch.dtype = torch.int64,
) -> Path:
    """Export the model of ``folder`` into it with torch's older exporter, as optimum does.

    ``fixed``: the axes of the inputs (0: batch, 1: sequence) that keep the example's size.
    """
    (name,) = json.loads((folder / "config.json").read_text())["architectures"]
    suffix = next((suffix for suffix in _AUTO if name.endswith(suffix)), None)
    if output == "last_hidden_state":  # of a checkpoint that is named after its training's head
        suffix = None
    auto = _AUTO[suffix] if suffix else AutoModel
    model = auto.from_pretrained(folder, attn_implementation="eager").eval()
    output = output or (
        "logits" if suffix else "sentence_embedding" if pooled else "last_hidden_state"
    )
    both = {0: "batch_size", 1: "sequence_length"}
    axes = {name: {a: both[a] for a in both if a not in fixed} for name in inputs}
    of_text = pooled or suffix == "ForSequenceClassification"
    (folder / file).parent.mkdir(exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Chosen(model, inputs, pooled),
            tuple(torch.ones((2, 8), dtype=dtype) for _ in inputs),
            folder / file,
            input_names=list(inputs),
            output_names=[output],
            dynamic_axes={**axes, output: {0: "batch_size"} if of_text else both},
            opset_version=opset,
            dynamo=False,
        )
    return folder


def save_outside(folder: Path, location: str | None, file: str = GRAPH) -> set[str]:
    """Move the weights of a shipped graph into the file ``location``, or a file a tensor.

    Returns the names of the files.
    """
    path = folder / file
    model = onnx.load(path)
    before = set(path.parent.iterdir())
    onnx.save_model(
        model,
        path,
        save_as_external_data=True,
        all_tensors_to_one_file=location is not None,
        location=location,
        size_threshold=0,
    )
    return {new.relative_to(folder).as_posix() for new in set(path.parent.iterdir()) - before}
