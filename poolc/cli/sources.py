"""Where a value came from that an option does not take: what an operator has to know to change it.

The command line, a variable of the environment, or a key of the file of ``--config``. Knows nothing
about what options mean.
"""

from __future__ import annotations

import reprlib
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperOption

from poolc.errors import InvalidOption


class SourcedCommand(TyperCommand):
    """A command whose refusals name the value that was given, and where it was given."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse; see typer. Refusals of a value are said in full."""
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            if isinstance(error.param, TyperArgument | TyperOption):
                opts, _, _ = self.make_parser(ctx).parse_args(args=given)
                value, source = error.param.consume_value(ctx, opts)
                if not error.param.value_is_missing(value):
                    error.message += _said(ctx, error.param, value, source)
            raise

    def invoke(self, ctx: Any) -> Any:
        """Run; see typer. A refusal names a source that the command line does not show."""
        try:
            return super().invoke(ctx)
        except InvalidOption as error:
            for option in self.params:
                name = str(option.name)
                if error.param in (name, f"{name}_s", f"{name}s"):  # what the library calls it
                    where = _where(ctx, option, ctx.get_parameter_source(name))
                    if where:
                        raise InvalidOption(f"{error} ({where})", param=error.param) from error
            raise


def _said(ctx: Any, option: Any, value: Any, source: Any) -> str:
    shown = f", not {reprlib.repr(value)}"
    where = _where(ctx, option, source)
    if where and isinstance(value, str) and value.startswith("tcp://"):
        where += (
            ", which Kubernetes sets for a Service of that name: set the Pod's enableServiceLinks "
            "to false, or give the option"
        )
    return f"{shown} ({where})" if where else shown


def _where(ctx: Any, option: Any, source: Any) -> str:
    """Name the variable, or the file and its key; nothing for what the command line shows."""
    found = getattr(source, "name", "")
    if found == "ENVIRONMENT":
        return f"from the variable {option.envvar}"
    if found == "DEFAULT_MAP":
        return f"from {str(option.name).replace('_', '-')} in {ctx.params.get('config')}"
    return ""
