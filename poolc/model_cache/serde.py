"""Frozen dataclasses <-> plain JSON values. Knows nothing about files or artifacts.

Reading is strict about what is there (a wrong type names the field) and lenient about what is not
known (an extra key is ignored), which is what lets an older reader open a newer minor schema.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import cache
from typing import Any, TypeVar, cast

from poolc.errors import meant

T = TypeVar("T")


def canonical_json(value: Any) -> bytes:
    """Return the one byte form of a JSON value: sorted keys, no spaces, UTF-8, newline at the end.

    Raises ValueError for NaN and infinities, which JSON cannot carry.
    """
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode("utf-8") + b"\n"


def to_plain(value: Any) -> Any:
    """Turn dataclasses, enums, tuples and mappings into dicts, lists and scalars."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return value


def from_plain(cls: type[T], value: Any, where: str = "") -> T:
    """Build ``cls`` from a plain JSON value.

    Raises ValueError that names the field (dotted path) for a missing field or a wrong type.
    """
    return cast("T", _decode(cls, value, where or cls.__name__))


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _decode(hint: Any, value: Any, where: str) -> Any:
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _decode_dataclass(hint, value, where)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _decode_union(args, value, where)
    if origin is tuple:
        return _decode_tuple(args, value, where)
    if origin is not None and issubclass(origin, Mapping):
        _expect(isinstance(value, dict), "an object", value, where)
        return {key: _decode(args[1], item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _decode_enum(hint, value, where)
    return _decode_scalar(hint, value, where)


def _decode_dataclass(cls: type, value: Any, where: str) -> Any:
    _expect(isinstance(value, dict), "an object", value, where)
    hints = _hints(cls)
    found = {}
    for field in dataclasses.fields(cls):
        if field.name in value:
            found[field.name] = _decode(
                hints[field.name], value[field.name], f"{where}.{field.name}"
            )
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{where}.{field.name} is missing")
    return cls(**found)


def _decode_union(args: Sequence[Any], value: Any, where: str) -> Any:
    if value is None and type(None) in args:
        return None
    (inner,) = (arg for arg in args if arg is not type(None))
    return _decode(inner, value, where)


def _decode_tuple(args: Sequence[Any], value: Any, where: str) -> tuple[Any, ...]:
    _expect(isinstance(value, list), "a list", value, where)
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(_decode(args[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    _expect(len(value) == len(args), f"a list of {len(args)}", value, where)
    return tuple(
        _decode(a, v, f"{where}[{i}]") for i, (a, v) in enumerate(zip(args, value, strict=True))
    )


def _decode_enum(cls: type[Enum], value: Any, where: str) -> Enum:
    try:
        return cls(value)
    except ValueError:
        allowed = [str(member.value) for member in cls]
        message = f"{where} is {value!r}; allowed: {', '.join(allowed)}{meant(value, allowed)}"
        raise ValueError(message) from None


def _decode_scalar(hint: type, value: Any, where: str) -> Any:
    # bool is an int in Python but not in JSON; an int is a fine float.
    ok = isinstance(value, hint) and not (hint is int and isinstance(value, bool))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    _expect(ok, hint.__name__, value, where)
    return value


def _expect(ok: bool, wanted: str, value: Any, where: str) -> None:
    if not ok:
        raise ValueError(f"{where} must be {wanted}, not {type(value).__name__}")
