"""The tuning record: what was chosen, as the manifest has it. The same one gives equal bytes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from poolc.compiler.tuning.candidates import NAMES, shipped
from poolc.errors import InvalidOption, meant

# Micro-batches of 256 tokens keep activations in a core's L2 cache.
BUDGET_TOKENS = 256
# More threads than this rarely pay for a short text.
LONE_THREADS = 4


@dataclass(frozen=True, slots=True)
class Tuning:
    """Rewrites by name, the most padded tokens of a micro-batch, and the most threads that a lone
    one gets.
    """

    rewrites: tuple[str, ...]
    budget_tokens: int = BUDGET_TOKENS
    lone_threads: int = LONE_THREADS

    def to_plain(self) -> dict[str, Any]:
        """Return the manifest's fields."""
        return asdict(self) | {"rewrites": list(self.rewrites)}


def defaults(features: Collection[str]) -> Tuning:
    """Return what ships for a CPU with these features where nothing is timed."""
    return Tuning(shipped(features))


def parse(plain: Mapping[str, Any]) -> Tuning:
    """Read a record. Raises InvalidOption for a rewrite that this poolc does not have."""
    names = plain.get("rewrites", [])
    if not isinstance(names, list):
        raise _refused("rewrites, a list of names", names)
    for name in names:
        if name not in NAMES:
            raise InvalidOption(
                f"the tuning record names the rewrite {name!r}; this poolc has: {', '.join(NAMES)}"
                f"{meant(str(name), NAMES)}",
                param="tune",
            )
    budget = _count(plain, "budget_tokens", BUDGET_TOKENS)
    return Tuning(tuple(names), budget, _count(plain, "lone_threads", LONE_THREADS))


def _count(plain: Mapping[str, Any], name: str, default: int) -> int:
    value = plain.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise _refused(f"{name}, at least 1", value)
    return value


def _refused(needed: str, value: object) -> InvalidOption:
    return InvalidOption(f"the tuning record needs {needed}; it has {value!r}", param="tune")
