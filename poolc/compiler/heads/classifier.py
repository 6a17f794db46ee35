"""The head of sequence classifiers: the checkpoint's own, then the activation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from poolc.compiler.heads.activations import activation_module
from poolc.spec import LOGITS, PROBS, TOKEN_EMBEDDINGS, Activation, ModelSpec


class ClassifierHead(nn.Module):
    """Logits of the class that transformers built, and their activation."""

    output_names = (LOGITS, PROBS, TOKEN_EMBEDDINGS)
    wants_hidden_states = True

    def __init__(self, spec: ModelSpec, folder: Path) -> None:
        super().__init__()
        self.activation = activation_module(spec.activation or Activation.IDENTITY)

    def forward(self, outputs: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        logits = outputs.logits.float()
        return logits, self.activation(logits).clone(), outputs.hidden_states[-1].float()
