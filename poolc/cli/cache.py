"""``poolc cache``: look at, verify and remove the artifacts of the store. Parses and prints."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime
from typing import Annotated

import typer

from poolc.errors import ArtifactCorrupt, InvalidOption
from poolc.model_cache.store import Entry, Store, Verdict

app = typer.Typer(help="Look at, verify and remove compiled artifacts.", no_args_is_help=True)

_SHOWN_DIGITS = 12
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command("list")
def list_entries(as_json: Json = False) -> None:
    """List the artifacts of the store, oldest first."""
    store = Store.default()
    entries = store.entries()
    if as_json:
        _print_json(entries)
    elif entries:
        _print_entries(entries)
    else:
        typer.echo(f"no artifacts in {store.root}")


@app.command()
def verify(
    ids: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ID]...", help="Ids or unique beginnings; all if none.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Hash every file of artifacts, trusting no stamp."""
    verdicts = Store.default().verify(*ids or ())
    if as_json:
        _print_json(verdicts)
    else:
        for verdict in verdicts:
            typer.echo(f"{verdict.artifact_id[:_SHOWN_DIGITS]}  {verdict.problem or 'ok'}")
    damaged = [verdict for verdict in verdicts if verdict.problem is not None]
    if damaged:
        raise ArtifactCorrupt(
            f"{len(damaged)} of {len(verdicts)} artifacts cannot be used: remove them with "
            "`poolc cache remove` and compile again"
        )


@app.command()
def remove(
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID]...", help="Ids or unique beginnings.", show_default=False),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Remove every artifact.")] = False,
) -> None:
    """Remove artifacts and what points at them."""
    if not ids and not everything:
        raise InvalidOption("name the artifacts to remove, or give --all")
    removed = Store.default().remove(*ids or (), everything=everything)
    for entry in removed:
        typer.echo(f"removed {entry.artifact_id[:_SHOWN_DIGITS]}  {entry.source or '?'}")
    typer.echo(f"{len(removed)} removed, {_size(sum(e.size_bytes for e in removed))} freed")


def _print_json(rows: list[Entry] | list[Verdict]) -> None:
    typer.echo(json.dumps([dataclasses.asdict(row) for row in rows], indent=2))


def _print_entries(entries: list[Entry]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("artifact", "source", "target", "precision", "size", "created", "refs", box=None)
    for entry in entries:
        table.add_row(
            entry.artifact_id[:_SHOWN_DIGITS],
            escape(entry.source or f"damaged: {entry.problem}"),
            entry.target,
            entry.precision,
            _size(entry.size_bytes),
            datetime.fromtimestamp(entry.created).strftime("%Y-%m-%d %H:%M"),
            str(len(entry.refs)),
        )
    Console().print(table)


def _size(size_bytes: int) -> str:
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
