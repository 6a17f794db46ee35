"""Protobuf's text format: the subset that Triton's ``config.pbtxt`` is written in.

https://protobuf.dev/reference/protobuf/textformat-spec/. Knows nothing about Triton's fields.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

_INDENT = "  "


class Word(str):
    """The name of an enum's value, which is written without quotes."""


def pbtxt(message: Mapping[str, Any]) -> str:
    """Return a message as text.

    A dict is a message, a list a repeated field, str, int, bool and Word are scalars. A field that
    is None or an empty list is left out.
    """
    return "\n".join(_fields(message, "")) + "\n"


def parameters(values: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return Triton's map of model parameters, whose values are strings."""
    return [{"key": key, "value": {"string_value": value}} for key, value in values.items()]


def _fields(message: Mapping[str, Any], indent: str) -> Iterator[str]:
    for name, value in message.items():
        if value is None or value == []:
            continue
        if isinstance(value, list) and isinstance(value[0], Mapping):
            for one in value:
                yield from _message(name, one, indent)
        elif isinstance(value, list):
            yield f"{indent}{name}: [{', '.join(map(_scalar, value))}]"
        elif isinstance(value, Mapping):
            yield from _message(name, value, indent)
        else:
            yield f"{indent}{name}: {_scalar(value)}"


def _message(name: str, message: Mapping[str, Any], indent: str) -> Iterator[str]:
    if not message:
        yield f"{indent}{name} {{}}"
        return
    yield f"{indent}{name} {{"
    yield from _fields(message, indent + _INDENT)
    yield f"{indent}}}"


def _scalar(value: Any) -> str:
    if isinstance(value, Word):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        # Of printable ASCII both formats escape quotes and backslashes alone.
        if value.isascii() and value.isprintable():
            return json.dumps(value)
        return '"' + "".join(f"\\{byte:03o}" for byte in value.encode()) + '"'
    raise TypeError(f"{value!r} has no text format; this is a bug in poolc")
