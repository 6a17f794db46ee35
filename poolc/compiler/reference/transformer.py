"""The reference of models whose head is transformers' own, or none."""

from __future__ import annotations

import torch

from poolc.compiler.architecture import load_weights
from poolc.compiler.heads import activation_module
from poolc.compiler.parity_texts import parity_pairs, parity_texts
from poolc.compiler.reference.base import Case, Reference, Subject
from poolc.runtime.request import Item
from poolc.spec import LOGITS, PROBS, TOKEN_EMBEDDINGS, Activation


class TransformerReference(Reference):
    """Runs the class that transformers builds."""

    name = "transformers"

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self.model = load_weights(
            subject.folder / subject.recognized.transformer,
            subject.recognized.arch,
            trust_remote_code=subject.options.trust_remote_code,
            attention="eager",
        )


class HiddenStatesReference(TransformerReference):
    """Hidden states as they are."""

    def outputs(self, case: Case, item: Item) -> dict[str, torch.Tensor]:
        return {TOKEN_EMBEDDINGS: self.model(**self.encode(item)).last_hidden_state}


class ClassifierReference(TransformerReference):
    """Logits and their activation, of texts and of pairs."""

    def cases(self) -> list[Case]:
        items = parity_texts(self.max_length) + parity_pairs(self.max_length)
        return [Case(self.spec.tasks[0], items, self.params())]

    def outputs(self, case: Case, item: Item) -> dict[str, torch.Tensor]:
        output = self.model(**self.encode(item), output_hidden_states=True)
        logits = self._affine(self._rows(output.logits))
        activation = activation_module(self.spec.activation or Activation.IDENTITY)
        return {
            LOGITS: logits,
            PROBS: activation(logits),
            TOKEN_EMBEDDINGS: output.hidden_states[-1],
        }

    def _rows(self, logits: torch.Tensor) -> torch.Tensor:
        """Of a language model, [1, seq, vocab]: the rows of the last token."""
        head = self.spec.lm_head
        if head is None:
            return logits
        rows = logits[:, -1, list(head.token_ids)]
        return rows[:, 1:] - rows[:, :1] if head.difference else rows

    def _affine(self, logits: torch.Tensor) -> torch.Tensor:
        mean, sigma = self.spec.logit_mean, self.spec.logit_sigma
        return (logits - (mean or 0.0)) / (1.0 if sigma is None else sigma)
