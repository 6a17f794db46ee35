"""Options of the commands that run jobs: what is read and written, and how a job runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT",
        help="Files, folders, globs or addresses (s3://...) of text, one a line, JSON lines, CSV, "
        "TSV (.gz and .zst too), Parquet or Arrow; - for standard input.",
    ),
]
PairInputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT",
        help="Files, folders, globs or addresses (s3://...) with two columns: JSON lines, CSV, "
        "TSV, Parquet or Arrow; - for standard input.",
    ),
]
Output = Annotated[
    str,
    typer.Option(
        "--output",
        "-o",
        help="Where rows go: .jsonl, .npy, .parquet, .arrow, a name that ends with / for a folder "
        "of parts, an address (s3://...), or - for standard output.",
    ),
]
TextColumn = Annotated[
    str,
    typer.Option(help='Column that holds the text, or a template over several: "{title}: {body}".'),
]


@dataclass(frozen=True, slots=True)
class FileArguments:
    """What is read of the inputs, and what of it goes to the output."""

    id_column: Annotated[
        str | None, typer.Option(help='Column of ids; "id", where there is one, if not given.')
    ] = None
    keep: Annotated[
        str | None,
        typer.Option(
            metavar="all|COLUMN,...", help="Columns of the inputs that answers are appended to."
        ),
    ] = None
    input_format: Annotated[
        str | None,
        typer.Option(help="text, jsonl, csv, tsv, parquet or arrow; by the name if not given."),
    ] = None
    output_format: Annotated[
        str | None,
        typer.Option(help="jsonl, parquet, arrow or npy; by the name, of folders parquet."),
    ] = None

    @property
    def kept(self) -> tuple[str, ...]:
        """The columns to keep."""
        return () if self.keep is None else tuple(n.strip() for n in self.keep.split(","))


@dataclass(frozen=True, slots=True)
class RunArguments:
    """How a job runs."""

    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Stop at the first row that cannot be processed; else those go to "
            "OUTPUT.errors.jsonl.",
        ),
    ] = False
    dedupe: Annotated[bool, typer.Option("--dedupe", help="Compute equal texts once.")] = False
    append: Annotated[
        bool, typer.Option("--append", help="Add rows to the output that is there.")
    ] = False
    allow_precision_mix: Annotated[
        bool,
        typer.Option(
            "--allow-precision-mix", help="Append rows of a quantised artifact to others, or back."
        ),
    ] = False
    restart: Annotated[
        bool, typer.Option("--restart", help="Forget an unfinished job instead of going on.")
    ] = False
    allow_different_host: Annotated[
        bool,
        typer.Option(
            "--allow-different-host",
            help="Go on with a job that was begun on another kind of CPU or with other versions.",
        ),
    ] = False
    part_rows: Annotated[
        int | None,
        typer.Option(help="Rows that are sorted, computed and committed together; 32768."),
    ] = None
    as_json: Annotated[
        bool, typer.Option("--json", help="Tell progress as JSON lines on standard error.")
    ] = False
