"""What a reference is: the library that defines a model, in fp32, eager, one text at a time.

So neither padding nor poolc's own heads take part.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch

from poolc.compiler.comparison import Case, Subject
from poolc.compiler.parity_texts import PARITY_MAX_LENGTH, parity_texts
from poolc.runtime.outputs import Float32
from poolc.runtime.request import Item, Params, Row

__all__ = ["Case", "Reference", "Subject"]


class Reference(ABC):
    """Computes one row a text with the library that defines the model."""

    name: str

    def __init__(self, subject: Subject) -> None:
        self.spec = subject.recognized.spec
        self.tokenizer = subject.tokenizer
        self.max_length = min(self.spec.max_length, PARITY_MAX_LENGTH)

    def cases(self) -> list[Case]:
        """Return what is compared: every kind of text, in the model's first task."""
        return [Case(self.spec.tasks[0], parity_texts(self.max_length), self.params())]

    def params(self) -> Params:
        """Return parameters of a comparison: no prompt, cut to the lengths that are compared."""
        return Params(prompt="", truncate=True, max_length=self.max_length)

    def token_ids(self, case: Case, item: Item) -> tuple[list[int], list[int] | None]:
        """Return AutoTokenizer's ids and segment ids of an item, cut to the maximum length."""
        encoded = self.encode(item)
        types = encoded.get("token_type_ids")
        return encoded["input_ids"][0].tolist(), None if types is None else types[0].tolist()

    def rows(self, case: Case) -> list[Row]:
        """Return the reference outputs of each item, by the names that graphs use."""
        with torch.inference_mode():
            return [_numpy(self.outputs(case, item)) for item in case.items]

    def answers(self, case: Case, rows: Sequence[Row]) -> list[Float32] | None:
        """Return what the runtime has to make of ``rows``; None where that is nothing."""
        return None

    @abstractmethod
    def outputs(self, case: Case, item: Item) -> dict[str, torch.Tensor]:
        """Return every output of one item as [1, ...]."""

    def encode(self, item: Item) -> dict[str, torch.Tensor]:
        """Tokenise one text or pair with AutoTokenizer, cut to the maximum length."""
        texts = item if isinstance(item, tuple) else (item,)
        encoded = self.tokenizer(
            *texts, truncation=True, max_length=self.max_length, return_tensors="pt"
        )
        return {name: encoded[name] for name in self.spec.inputs if name in encoded}


def _numpy(outputs: dict[str, torch.Tensor]) -> Row:
    return {name: np.asarray(value[0].float().numpy()) for name, value in outputs.items()}
