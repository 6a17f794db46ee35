"""Groups: a dataclass parameter becomes one option a field, and arrives whole."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Annotated

import typer
from typer.testing import CliRunner

from poolc.cli.groups import grouped

Name = Annotated[str, typer.Argument()]


@dataclass(frozen=True, slots=True)
class Group:
    size: Annotated[int, typer.Option(help="How many.")] = 3
    tags: Annotated[list[str], typer.Option("--tag")] = field(default_factory=list)


def command_line(seen: list[object]) -> typer.Typer:
    @grouped
    def command(name: Name, *, loud: bool = False, group: Group) -> None:
        seen.extend([name, loud, group])

    app = typer.Typer()
    app.command()(command)
    return app


def test_values_arrive_in_the_group() -> None:
    seen: list[object] = []
    arguments = ["x", "--size", "5", "--tag", "a", "--tag", "b", "--loud"]
    result = CliRunner().invoke(command_line(seen), arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert seen == ["x", True, Group(5, ["a", "b"])]


def test_defaults_arrive_in_the_group() -> None:
    seen: list[object] = []
    CliRunner().invoke(command_line(seen), ["x"], catch_exceptions=False)
    assert seen == ["x", False, Group()]


def test_signature_shows_the_fields() -> None:
    @grouped
    def command(name: Name, group: Group) -> None:
        """Do it."""

    assert list(inspect.signature(command).parameters) == ["name", "size", "tags"]
    assert command.__doc__ == "Do it."
