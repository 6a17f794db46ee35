"""References of models that answer with logits of every token."""

from __future__ import annotations

from typing import Any

import torch

from poolc.compiler.architecture import token_head
from poolc.compiler.reference.base import Case
from poolc.compiler.reference.transformer import HiddenStatesReference, TransformerReference
from poolc.runtime.request import Item
from poolc.spec import TOKEN_EMBEDDINGS, TOKEN_LOGITS, Trunk


class TokenLogitsReference(TransformerReference):
    """The class's own ``logits``."""

    def outputs(self, case: Case, item: Item) -> dict[str, torch.Tensor]:
        output = self.model(**self.encode(item), output_hidden_states=True)
        return {TOKEN_LOGITS: output.logits, TOKEN_EMBEDDINGS: output.hidden_states[-1]}


class RewardReference(HiddenStatesReference):
    """Hidden states, logits of chosen tokens, or what the class's head gives in its ``forward``."""

    def outputs(self, case: Case, item: Item) -> dict[str, torch.Tensor]:
        if not self.spec.labels:
            return super().outputs(case, item)
        if self.spec.trunk is Trunk.BASE:
            return self._of_head(item)
        output = self.model(**self.encode(item), output_hidden_states=True)
        logits = output.logits
        if self.spec.lm_head is not None:
            logits = logits[..., list(self.spec.lm_head.token_ids)]
        return {TOKEN_LOGITS: logits, TOKEN_EMBEDDINGS: output.hidden_states[-1]}

    def _of_head(self, item: Item) -> dict[str, torch.Tensor]:
        """Watch the head while the class runs, whatever it does with the result."""
        head = token_head(self.model)
        seen: list[torch.Tensor] = []

        def note(module: Any, given: tuple[torch.Tensor, ...], made: torch.Tensor) -> None:
            seen[:] = [given[0], made]

        watch = getattr(self.model, head.name if head else "").register_forward_hook(note)
        try:
            self.model(**self.encode(item))
        finally:
            watch.remove()
        hidden, logits = seen
        return {TOKEN_LOGITS: logits, TOKEN_EMBEDDINGS: hidden}
