"""Groups of options: a command takes a dataclass, the command line shows its fields as options.

typer turns a function's parameters into options one by one; this lets several commands share a
group without repeating it. Knows nothing about what the options mean.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any

from typer.models import ParameterInfo


def grouped(command: Callable[..., None], env_prefix: str = "") -> Callable[..., None]:
    """Return ``command`` with every parameter that is annotated with a dataclass spread out.

    The dataclass's fields carry ``Annotated[..., typer.Option(...)]`` and a default each. With an
    ``env_prefix`` every option is an environment variable too: --max-items is PREFIX_MAX_ITEMS.
    """
    signature = inspect.signature(command, eval_str=True)
    groups: dict[str, type] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        group = parameter.annotation
        if isinstance(group, type) and dataclasses.is_dataclass(group):
            groups[parameter.name] = group
            parameters += _spread(group)
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    if env_prefix:
        parameters = [_with_variable(parameter, env_prefix) for parameter in parameters]

    @functools.wraps(command)
    def spread(**values: Any) -> None:
        for name, group in groups.items():
            fields = {f.name: values.pop(f.name) for f in dataclasses.fields(group)}
            values[name] = group(**fields)
        command(**values)

    spread.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    spread.__annotations__ = {p.name: p.annotation for p in parameters}
    return spread


def _spread(group: Any) -> list[inspect.Parameter]:
    hints = typing.get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=_default(field),
            annotation=hints[field.name],
        )
        for field in dataclasses.fields(group)
    ]


def _with_variable(parameter: inspect.Parameter, prefix: str) -> inspect.Parameter:
    kind, *infos = typing.get_args(parameter.annotation)
    named = []
    for info in infos:
        if isinstance(info, ParameterInfo):
            info = copy.copy(info)  # other commands have the same option without a variable
            info.envvar, info.show_envvar = f"{prefix}{parameter.name.upper()}", False
        named.append(info)
    return parameter.replace(annotation=typing.Annotated[kind, *named])


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default
