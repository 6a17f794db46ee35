"""References of models that answer with logits of every token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from poolc.compiler.architecture import token_head
from poolc.compiler.heads import activation_module
from poolc.compiler.reference.base import Case
from poolc.compiler.reference.transformer import HiddenStatesReference, TransformerReference
from poolc.runtime.outputs import Float32
from poolc.runtime.request import Item, Row
from poolc.spec import TOKEN_EMBEDDINGS, TOKEN_LOGITS, Activation, ModelSpec, StepSpec, Trunk

# The step's tag stands where the braces are.
_STEPS = ("a {0}", "first {0} second {0}", "Rivers carry silt down {0} from the hills {0} {0}")


def activated(spec: ModelSpec, logits: Float32) -> Float32:
    """Apply the model's activation by PyTorch; vLLM's choice of it where one column is left."""
    kind = spec.activation or Activation.IDENTITY
    if kind is Activation.SOFTMAX and logits.shape[-1] < 2:
        kind = Activation.SIGMOID
    return np.asarray(activation_module(kind)(torch.from_numpy(np.array(logits))).numpy())


class TokenLogitsReference(TransformerReference):
    """The class's own ``logits``."""

    def answers(self, case: Case, rows: Sequence[Row]) -> list[Float32]:
        return [activated(self.spec, row[TOKEN_LOGITS]) for row in rows]

    def outputs(self, case: Case, item: Item) -> dict[str, torch.Tensor]:
        output = self.model(**self.encode(item), output_hidden_states=True)
        return {TOKEN_LOGITS: output.logits, TOKEN_EMBEDDINGS: output.hidden_states[-1]}


class RewardReference(HiddenStatesReference):
    """Hidden states, logits of chosen tokens, or what the class's head gives in its ``forward``."""

    def cases(self) -> list[Case]:
        """Add texts that have steps; with the activation, which says more than raw rewards."""
        (case,) = super().cases()
        if not self.spec.labels:
            return [case]
        tag = self.spec.step.tag_id if self.spec.step else None
        name = "" if tag is None else self.tokenizer.decode([tag])
        items = [*case.items, *(text.format(name) for text in _STEPS if tag is not None)]
        return [replace(case, items=items, params=replace(case.params, use_activation=True))]

    def answers(self, case: Case, rows: Sequence[Row]) -> list[Float32] | None:
        """Steps, then columns, then the activation of as many columns as are left."""
        if not self.spec.labels:
            return None
        step = self.spec.step or StepSpec()
        found = []
        for item, row in zip(case.items, rows, strict=True):
            logits = row[TOKEN_LOGITS]
            if step.tag_id is not None:
                ids, _ = self.token_ids(case, item)
                logits = logits[np.array(ids) == step.tag_id]
            chosen = logits[:, list(step.columns)] if step.columns else logits
            found.append(activated(self.spec, chosen))
        return found

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
