"""The sandbox that templates run in, and how much they may write. Knows no template's purpose.

Rendering follows transformers' chat templates: the same whitespace rules, loop controls,
``raise_exception``, ``strftime_now`` and ``tojson``; ``generation`` blocks mark and change nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from jinja2 import Template
    from jinja2.sandbox import ImmutableSandboxedEnvironment

# What a prompt may have beyond eight times what it is made of: a template that repeats itself
# without end is stopped before it fills the memory.
_EXTRA_CHARS = 1 << 20

Fail = Callable[[str], NoReturn]
"""Raises the error of whoever renders, for a problem."""


@lru_cache(maxsize=2)
def environment(*, strict: bool) -> ImmutableSandboxedEnvironment:
    """Return the sandbox; ``strict``: a variable that is not given is an error."""
    # 20 ms that a start without templates does not pay.
    from jinja2 import StrictUndefined, Undefined
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """transformers' marks of what an assistant says."""

        tags = {"generation"}  # noqa: RUF012 - as the library declares it

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    made = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined if strict else Undefined,
        extensions=[Generation, loopcontrols],
    )
    made.filters["tojson"] = to_json
    made.globals["raise_exception"] = _raise
    made.globals["strftime_now"] = _strftime_now
    return made


def rendered(template: Template, variables: Mapping[str, Any], size: int, fail: Fail) -> str:
    """Render, for texts of ``size`` characters in all; ``fail`` says what goes wrong inside."""
    from jinja2 import TemplateError

    most = _EXTRA_CHARS + 8 * size
    parts, written = [], 0
    try:
        for part in template.generate(**variables):
            parts.append(part)
            written += len(part)
            if written > most:
                break
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
        fail(f"cannot be rendered: {error}")
    if written > most:
        fail(f"makes more than {most} characters of this")
    return "".join(parts)


def to_json(value: Any, indent: int | None = None, **_: Any) -> str:
    """The ``tojson`` of chat templates: no escaping of HTML."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise(message: str) -> NoReturn:
    from jinja2 import TemplateError

    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    from datetime import datetime

    return datetime.now().strftime(form)
