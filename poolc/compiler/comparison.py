"""What the parity gate compares, and what it asks of a reference. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from transformers import PreTrainedTokenizerBase

from poolc.compiler.recognize import Recognized
from poolc.runtime.outputs import Float32
from poolc.runtime.request import Item, Params, Row
from poolc.spec import CompileOptions, Task


@dataclass(frozen=True, slots=True)
class Subject:
    """The model that is compared: its folder, what was recognised, its tokenizer, the options."""

    folder: Path
    recognized: Recognized
    tokenizer: PreTrainedTokenizerBase
    options: CompileOptions


@dataclass(frozen=True, slots=True)
class Case:
    """Items that the gate asks the engine for in one way, which the reference follows."""

    task: Task
    items: Sequence[Item]
    params: Params


class Reference(Protocol):
    """Gives the numbers that an artifact has to reproduce; ``name`` says whose they are."""

    name: str

    def cases(self) -> list[Case]:
        """Return what is compared."""
        ...

    def token_ids(self, case: Case, item: Item) -> tuple[list[int], list[int] | None]:
        """Return the token ids and segment ids of an item."""
        ...

    def rows(self, case: Case) -> list[Row]:
        """Return the outputs of each item, by the names that graphs use."""
        ...

    def answers(self, case: Case, rows: Sequence[Row]) -> list[Float32] | None:
        """Return what the runtime has to make of ``rows``, one array an item.

        None where it makes nothing of them: the graph's outputs are the answer.
        """
        ...
