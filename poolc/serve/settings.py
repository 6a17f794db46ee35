"""What an operator can choose about a server. Plain data: imports no web framework."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from poolc.errors import InvalidOption

LogLevel = Literal["critical", "error", "warning", "info", "debug"]


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that ``poolc serve`` takes besides models and compile options."""

    host: str = "127.0.0.1"
    port: int = 8000  # 0: any free port, named in the log
    # Of one model: all its names, the first is shown in replies. Of several: one each, in order.
    served_model_names: tuple[str, ...] = ()
    strict_model_name: bool = False  # with one model: refuse any ``model`` but its names
    drain_timeout_s: float = 30.0  # from the first signal until what is left is cut off
    max_queued_tokens: int = 1 << 20  # admitted and not yet computed, a model; beyond it: 429
    # Of one request. OpenAI takes 2,048 texts; the vectors of so many, of 1,024 numbers each, are
    # 64 MiB. A body of texts that are 1 KiB on average is just large enough for them.
    max_items: int = 16_384
    max_body_bytes: int = 16 << 20
    log_level: LogLevel = "info"
    access_log: bool = True

    def __post_init__(self) -> None:
        """Raise InvalidOption for a value that no server can run with."""
        _require(0 <= self.port <= 65535, "port", self.port, "0 to 65535")
        _require(
            self.drain_timeout_s >= 0, "drain_timeout_s", self.drain_timeout_s, "0 or more seconds"
        )
        for name in ("max_queued_tokens", "max_items", "max_body_bytes"):
            value = getattr(self, name)
            _require(value >= 1, name, value, "1 or more")
        names = self.served_model_names
        if not all(names) or len(set(names)) != len(names):
            raise InvalidOption(
                f"served_model_names is {list(names)}; allowed: names that differ, none empty",
                param="served_model_names",
            )


def _require(ok: bool, name: str, value: float, allowed: str) -> None:
    if not ok:
        raise InvalidOption(f"{name} is {value}; allowed: {allowed}", param=name)
