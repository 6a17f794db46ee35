"""What a long command says while it works, on standard error: stages, warnings, downloads, rows.

Knows the compiler's events and a job's progress as data; computes nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from poolc.runtime.bulk import BulkProgress

_NAME_WIDTH = 12


class Reporter:
    """Prints the events of a compile; called with one event at a time.

    As a context it ends the line of a stage that an error cut short.
    """

    def __init__(self) -> None:
        self._pending = ""  # a line that is begun: the name of the stage or file

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, *error: object) -> None:
        self._begin("")

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Print one event."""
        kind = event.get("event")
        if kind == "stage" and event["status"] == "start":
            self._begin(event["name"])
        elif kind == "stage":
            self._end(event["name"], f"{event['seconds']:7.2f} s")
        elif kind == "warning":
            self._begin("")
            typer.echo(f"warning: {event['message']}", err=True)
        elif kind == "download":
            self._download(event["file"], event["done"], event["total"])

    def _begin(self, name: str) -> None:
        if self._pending:
            typer.echo("", err=True)
        self._pending = name
        if name:
            typer.echo(f"  {name:<{_NAME_WIDTH}}", nl=False, err=True)

    def _end(self, name: str, rest: str) -> None:
        if self._pending != name:
            self._begin(name)
        typer.echo(f" {rest}", err=True)
        self._pending = ""

    def _download(self, file: str, done: int, total: int) -> None:
        if done >= total:
            self._end(file, f"{total / 1e6:.1f} MB")
        elif sys.stderr.isatty():
            typer.echo(f"\r  {file:<{_NAME_WIDTH}} {100 * done // total:3d} %", nl=False, err=True)
            self._pending = file


@contextmanager
def progress_of_rows() -> Iterator[Callable[[BulkProgress], None] | None]:
    """Yield a callback that draws a bar, or None where standard error is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TextColumn("{task.fields[rows]:,} rows"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=None, rows=0)

        def show(done: BulkProgress) -> None:
            progress.update(
                bar, completed=done.done_bytes, total=done.total_bytes, rows=done.num_rows
            )

        yield show
