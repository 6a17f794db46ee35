"""vLLM's dotted spelling: ``--pooler-config.FIELD value`` is a field of ``--pooler-config JSON``.

Rewrites arguments before typer sees them. Knows which options are objects, not what is in them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from poolc.errors import InvalidOption

_OBJECTS = ("--pooler-config", "--hf-overrides")


def with_objects(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with the fields of each object joined into one option.

    Raises InvalidOption for a field without value, and for one beside the whole object.
    """
    found: dict[str, dict[str, Any]] = {}
    plain: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        option, _, field = argument.partition(".")
        if argument == "--":
            plain += [argument, *rest]
        elif option in _OBJECTS and field:
            field, given, value = field.partition("=")
            text = value if given else next(rest, None)
            if text is None:
                raise InvalidOption(f"{argument} has no value", param=option)
            _put(found.setdefault(option, {}), field.split("."), _value(text), argument)
        else:
            plain.append(argument)
    for option, fields in found.items():
        if any(argument.partition("=")[0] == option for argument in plain):
            raise InvalidOption(
                f"{option} and {option}.{next(iter(fields))} are both given: use one spelling",
                param=option,
            )
    joined = [word for option, fields in found.items() for word in (option, json.dumps(fields))]
    end = plain.index("--") if "--" in plain else len(plain)
    return [*plain[:end], *joined, *plain[end:]]


def _put(fields: dict[str, Any], path: Sequence[str], value: Any, argument: str) -> None:
    *above, name = path
    for part in above:
        fields = fields.setdefault(part, {})
    name = name if above else name.replace("-", "_")
    if name in fields:
        raise InvalidOption(f"{argument} is given twice: give it once", param=argument)
    fields[name] = value


def _value(text: str) -> Any:
    """Read JSON; what is none is a string, so that names need no quotes within quotes."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        spelled = {"true": True, "false": False, "none": None}
        return spelled.get(text.lower(), text)
