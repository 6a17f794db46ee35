"""The tuning record: what was chosen, as the manifest has it. The same one gives equal bytes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from poolc.compiler.tuning.candidates import NAMES, shipped
from poolc.errors import InvalidOption, meant

# Micro-batches of 256 tokens keep activations in a core's L2 cache.
BUDGET_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Tuning:
    """Rewrites by name, and the most padded tokens of a micro-batch."""

    rewrites: tuple[str, ...]
    budget_tokens: int = BUDGET_TOKENS

    def to_plain(self) -> dict[str, Any]:
        """Return the manifest's fields."""
        return {"rewrites": list(self.rewrites), "budget_tokens": self.budget_tokens}


def defaults(features: Collection[str]) -> Tuning:
    """Return what ships for a CPU with these features where nothing is timed."""
    return Tuning(shipped(features))


def parse(plain: Mapping[str, Any]) -> Tuning:
    """Read a record. Raises InvalidOption for a rewrite that this poolc does not have."""
    names, budget = plain.get("rewrites", []), plain.get("budget_tokens", BUDGET_TOKENS)
    if not isinstance(names, list) or not isinstance(budget, int) or budget < 1:
        raise InvalidOption(
            "the tuning record needs rewrites, a list of names, and budget_tokens, at least 1; "
            f"it has {names!r} and {budget!r}",
            param="tune",
        )
    for name in names:
        if name not in NAMES:
            raise InvalidOption(
                f"the tuning record names the rewrite {name!r}; this poolc has: {', '.join(NAMES)}"
                f"{meant(str(name), NAMES)}",
                param="tune",
            )
    return Tuning(tuple(names), budget)
