"""Choices with their origins: overrides beat files beat defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from poolc.compiler.overrides import attributed


@dataclass(slots=True)
class Choices:
    """Values by ModelSpec field name. Call ``set`` in rising order of precedence.

    ``overrides``: the keys of config.json that an option gave, which is then their origin.
    """

    overrides: Mapping[str, Any] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)

    def set(self, name: str, value: Any, origin: str) -> None:
        """Choose ``value``; an earlier choice is replaced."""
        self.values[name] = value
        self.origins[name] = attributed(origin, self.overrides)

    def get(self, name: str, default: Any = None) -> Any:
        """Return the current choice."""
        return self.values.get(name, default)
