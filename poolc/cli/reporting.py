"""What a long command says while it works, on standard error: stages, warnings, downloads, rows.

Knows the compiler's events and a job's progress as data; computes nothing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from poolc.runtime.bulk import BulkProgress, BulkResult

_NAME_WIDTH = 12
_LINE_INTERVAL_S = 10.0
_JSON_INTERVAL_S = 1.0


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


class JsonEvents:
    """Prints every event as a JSON line on standard error."""

    def __enter__(self) -> JsonEvents:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Print one event."""
        typer.echo(json.dumps(event), err=True)


@contextmanager
def progress_of_rows(*, as_json: bool = False) -> Iterator[Callable[[BulkProgress], None]]:
    """Yield a callback that draws a bar, or prints lines where standard error is no terminal."""
    if as_json:
        yield _every(_JSON_INTERVAL_S, lambda done: JsonEvents()(progress_fields(done)))
    elif not sys.stderr.isatty():
        yield _every(_LINE_INTERVAL_S, lambda done: typer.echo(progress_line(done), err=True))
    else:
        with _bar() as show:
            yield show


@contextmanager
def _bar() -> Iterator[Callable[[BulkProgress], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TextColumn("{task.fields[said]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=None, said="")

        def show(done: BulkProgress) -> None:
            total, line = done.total_bytes, progress_line(done)
            progress.update(bar, completed=done.done_bytes, total=total, said=line)

        yield show


def _every(seconds: float, show: Callable[[BulkProgress], None]) -> Callable[[BulkProgress], None]:
    """Return a callback that passes on the first of what comes within so many seconds."""
    last_s = 0.0

    def passed(done: BulkProgress) -> None:
        nonlocal last_s
        if done.elapsed_s - last_s >= seconds:
            last_s = done.elapsed_s
            show(done)

    return passed


def progress_line(done: BulkProgress) -> str:
    """Say how far a job is, for people."""
    said = [f"{done.num_rows:,} rows"]
    if done.total_bytes:
        said[0] += f" ({100 * done.done_bytes / done.total_bytes:.0f} %)"
    said.append(f"{done.tokens_per_s:,.0f} tokens/s")
    said.append(f"padding {100 * done.padding:.1f} %")
    if done.num_failed:
        said.append(f"{done.num_failed:,} failed")
    if done.eta_s is not None:
        said.append(f"{_duration(done.eta_s)} left")
    return ", ".join(said)


def progress_fields(done: BulkProgress) -> dict[str, Any]:
    """Say how far a job is, as the fields of an event."""
    return {
        "event": "progress",
        "rows": done.num_rows,
        "failed": done.num_failed,
        "resumed_rows": done.num_resumed,
        "bytes": done.done_bytes,
        "total_bytes": done.total_bytes,
        "tokens": done.num_tokens,
        "tokens_per_s": round(done.tokens_per_s, 1),
        "padding": round(done.padding, 4),
        "elapsed_s": round(done.elapsed_s, 3),
        "eta_s": None if done.eta_s is None else round(done.eta_s, 1),
    }


def result_fields(result: BulkResult) -> dict[str, Any]:
    """Say what a job wrote, as the fields of an event."""
    return {
        "rows": result.num_rows,
        "failed": result.num_failed,
        "resumed_rows": result.num_resumed,
        "output": result.output,
        "errors": result.errors,
        "tokens": result.num_tokens,
        "computed_tokens": result.num_computed,
        "seconds": round(result.seconds, 3),
        "meta": dict(result.meta),
    }


def done_line(result: BulkResult) -> str:
    """Say what a job wrote, for people."""
    where = "standard output" if result.output == "-" else result.output
    cut = f", {result.num_truncated} of them truncated," if result.num_truncated else ""
    meta = result.meta
    said = (
        f"{result.num_rows} rows{cut} to {where} in {result.seconds:.2f} s (artifact "
        f"{meta['artifact_id'][:12]}, space {meta['space_id'][:12]})"
    )
    if result.num_resumed:
        said += f"; {result.num_resumed} were there from before"
    if result.num_failed:
        said += f"\n{result.num_failed} rows could not be processed: {result.errors} says why"
    return said


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes // 60}:{minutes % 60:02d} h" if minutes >= 60 else f"{minutes}:{rest:02d} min"
