"""What the server writes to standard error: lines for people, or a JSON object a line.

Requests are logged by ids, sizes and times. No text of a request is, at any level.
"""

from __future__ import annotations

import json
import logging
import logging.config
from datetime import UTC, datetime
from typing import Any

from poolc.serve.settings import Settings

ACCESS = "poolc.access"
_access = logging.getLogger(ACCESS)
_LINE = "%(levelname)s %(name)s: %(message)s"


class LineFormatter(logging.Formatter):
    """One line a message, whatever is in it: what cannot be printed is written as Python would."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line; a traceback comes behind it."""
        message = record.message.rstrip("\n")
        if not message.isprintable():
            record.message = "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)
        return super().formatMessage(record)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, and a request's fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def log_config(settings: Settings) -> dict[str, Any]:
    """Return the configuration of logging for the whole process."""
    formatter: dict[str, Any] = {"()": LineFormatter, "fmt": _LINE}
    if settings.log_format == "json":
        formatter = {"()": JsonFormatter}
    quiet = {"level": "WARNING"}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": formatter},
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "stream": "ext://sys.stderr",
                "formatter": "line",
            }
        },
        "loggers": {
            name: {"handlers": ["stderr"], "level": settings.log_level.upper(), "propagate": False}
            for name in ("poolc", "uvicorn")
        }
        | ({} if settings.access_log else {ACCESS: quiet}),
    }


def configure_logging(settings: Settings) -> None:
    """Let this process log as a server does."""
    logging.config.dictConfig(log_config(settings))


def is_access_logged() -> bool:
    """Return whether requests get lines."""
    return _access.isEnabledFor(logging.INFO)


def log_reply(fields: dict[str, Any]) -> None:
    """Log one request that was answered."""
    if is_access_logged():
        words = "{client} {method} {path} {status} {ms:.1f} ms {request_id}".format_map(fields)
        _access.info(words, extra={"fields": fields})
