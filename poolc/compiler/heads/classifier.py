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
        self.affine = (spec.logit_mean, spec.logit_sigma) != (None, None)
        self.mean = 0.0 if spec.logit_mean is None else spec.logit_mean
        self.sigma = 1.0 if spec.logit_sigma is None else spec.logit_sigma

    def extra_repr(self) -> str:
        return f"mean={self.mean}, sigma={self.sigma}"

    def forward(self, outputs: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        logits = outputs.logits.float()
        if self.affine:
            logits = (logits - self.mean) / self.sigma
        return logits, self.activation(logits).clone(), outputs.hidden_states[-1].float()
