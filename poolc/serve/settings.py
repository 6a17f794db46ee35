"""What an operator can choose about a server. Plain data: imports no web framework."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import Literal

from poolc.errors import InvalidOption

LogLevel = Literal["critical", "error", "warning", "info", "debug"]
LogFormat = Literal["text", "json"]
TokenIdPolicy = Literal["model", "cl100k", "refuse"]


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that ``poolc serve`` takes besides models and compile options."""

    host: str = "127.0.0.1"
    port: int = 8000  # 0: any free port, named in the log
    uds: str | None = None  # path of a socket to listen on instead of host and port
    root_path: str = ""  # what a proxy puts before every path
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    api_keys: tuple[str, ...] = field(default=(), repr=False)  # none: anybody may ask
    workers: int = 1  # processes that serve the same models, sharing cores and weights
    admin: bool = False  # whether models can be added and removed over HTTP
    allowed_origins: tuple[str, ...] = ()  # of web pages (CORS); *: all
    # Of one model: all its names, the first is shown in replies. Of several: one each, in order.
    served_model_names: tuple[str, ...] = ()
    strict_model_name: bool = False  # with one model: refuse any ``model`` but its names
    drain_timeout_s: float = 30.0  # from the first signal until what is left is cut off
    token_ids: TokenIdPolicy = "model"  # what ids in OpenAI's requests are: see ``token_ids.py``
    cl100k_file: str | None = None
    request_timeout_s: float | None = None  # a request that takes longer gets 504
    max_queued_tokens: int = 1 << 20  # admitted and not yet computed, a model; beyond it: 429
    max_queue_s: float = 10.0  # until a request would begin, about; beyond it: 429
    # Of one request. OpenAI takes 2,048 texts; the vectors of so many, of 1,024 numbers each, are
    # 64 MiB. A body of texts that are 1 KiB on average is just large enough for them.
    max_items: int = 16_384
    max_body_bytes: int = 16 << 20
    truncate: bool = False  # cut texts that are too long, where a request does not say
    log_level: LogLevel = "info"
    log_format: LogFormat = "text"
    access_log: bool = True
    traces: bool = False  # OpenTelemetry's, sent where its environment says

    def __post_init__(self) -> None:
        """Raise InvalidOption for a value that no server can run with."""
        _require(0 <= self.port <= 65535, "port", self.port, "0 to 65535")
        drain_s = self.drain_timeout_s
        _require(0 <= drain_s < inf, "drain_timeout_s", drain_s, "0 or more seconds, not endless")
        _require(self.max_queue_s > 0, "max_queue_s", self.max_queue_s, "more than 0 seconds")
        limit_s = self.request_timeout_s
        _require(limit_s is None or limit_s > 0, "request_timeout_s", limit_s or 0, "more than 0")
        for name in ("max_queued_tokens", "max_items", "max_body_bytes", "workers"):
            value = getattr(self, name)
            _require(value >= 1, name, value, "1 or more")
        if (self.ssl_certfile is None) != (self.ssl_keyfile is None):
            missing = "ssl_keyfile" if self.ssl_certfile else "ssl_certfile"
            raise InvalidOption(f"TLS needs a certificate and a key: give {missing}", param=missing)
        if self.admin and not self.api_keys and self.uds is None:
            raise InvalidOption(
                "admin lets whoever asks load any model that this process can read: give an API "
                "key, or serve on a Unix socket",
                param="admin",
            )
        if self.admin and self.workers > 1:
            raise InvalidOption(
                f"admin changes the models of one process, and workers is {self.workers}: leave "
                "one of them out",
                param="workers",
            )
        if not all(key.strip() for key in self.api_keys):
            raise InvalidOption("an API key is empty", param="api_keys")
        if self.root_path and (not self.root_path.startswith("/") or self.root_path.endswith("/")):
            raise InvalidOption(
                f"root_path is {self.root_path!r}; allowed: a path that begins with / and does not "
                "end with one",
                param="root_path",
            )
        names = self.served_model_names
        if not all(names) or len(set(names)) != len(names):
            raise InvalidOption(
                f"served_model_names is {list(names)}; allowed: names that differ, none empty",
                param="served_model_names",
            )


def _require(ok: bool, name: str, value: float, allowed: str) -> None:
    if not ok:
        raise InvalidOption(f"{name} is {value}; allowed: {allowed}", param=name)
