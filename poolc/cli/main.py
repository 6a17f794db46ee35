"""The entry point: the commands in one app, and the top frame that turns errors into one line.

Knows nothing about what a command does. Every error that poolc raises on purpose becomes a line on
standard error and an exit code of ``exit_codes.py``; ``--debug`` shows the traceback too.
"""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Sequence
from functools import partial
from types import FrameType
from typing import Annotated, NoReturn

import typer

from poolc.cli import bench, cache, exit_codes, export
from poolc.cli.compare import compare
from poolc.cli.compile import compile_model
from poolc.cli.doctor import doctor
from poolc.cli.dotted import with_objects
from poolc.cli.inspect import inspect
from poolc.cli.jobs import classify, embed, encode, reward, score
from poolc.cli.serve import serve
from poolc.cli.sources import SourcedCommand
from poolc.errors import PoolcError

_DEBUG = "--debug"

# rich draws prettier help, and costs more to import than all of poolc's own start.
app = typer.Typer(
    name="poolc",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nExit codes:\n" + exit_codes.table(),
)
_command = partial(app.command, cls=SourcedCommand)
_command("compile")(compile_model)
_command("embed")(embed)
_command("classify")(classify)
_command("score")(score)
_command("reward")(reward)
_command("encode")(encode)
_command("compare")(compare)
_command("serve")(serve)
_command("inspect")(inspect)
_command("doctor")(doctor)
app.add_typer(cache.app, name="cache")
app.add_typer(bench.app, name="bench")
app.add_typer(export.app, name="export")


def _print_version(asked: bool) -> None:
    if asked:
        from poolc import __version__

        typer.echo(f"poolc {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[
        bool, typer.Option(_DEBUG, help="Show the traceback of an error; after a command too.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Show the version."),
    ] = False,
) -> None:
    """Compile pooling models ahead of time; run and serve them without PyTorch."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Taken out here, so that every command has it without declaring it.
    debug = _DEBUG in given
    # An exception cleans up; the default would leave half files and a running compiler behind.
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        code = _run([argument for argument in given if argument != _DEBUG], debug)
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
    sys.exit(code)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(exit_codes.TERMINATED)


def _run(arguments: list[str], debug: bool) -> int:
    try:
        app(with_objects(arguments), prog_name="poolc")
    except SystemExit as stop:  # typer's way to end: done, a usage error it printed, an interrupt
        return stop.code if isinstance(stop.code, int) else exit_codes.SUCCESS
    except Exception as error:
        if debug:
            traceback.print_exc()
        typer.echo(_line(error), err=True)
        return exit_codes.exit_code(error)
    return exit_codes.SUCCESS


def _line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        place = "" if error.filename is None else f": {error.filename}"
        return f"error: {error.strerror}{place}"
    message = " ".join(str(error).split())
    if isinstance(error, PoolcError | OSError):
        return f"error: {message}"
    return (
        f"error: {type(error).__name__}: {message} (this is a bug in poolc: run again with "
        f"{_DEBUG} for the traceback, and report it)"
    )
