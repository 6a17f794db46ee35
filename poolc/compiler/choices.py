"""Choices with their origins: overrides beat files beat defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Choices:
    """Values by ModelSpec field name. Call ``set`` in rising order of precedence."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)

    def set(self, name: str, value: Any, origin: str) -> None:
        """Choose ``value``; an earlier choice is replaced."""
        self.values[name] = value
        self.origins[name] = origin

    def get(self, name: str, default: Any = None) -> Any:
        """Return the current choice."""
        return self.values.get(name, default)
