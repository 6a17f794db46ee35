"""Options of the commands that run jobs: what is read and written, and how a job runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer

RAY = "ray"
ENGINES = ("local", RAY)

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


@dataclass(frozen=True, slots=True)
class EngineArguments:
    """Who computes: this process, or workers of a Ray cluster."""

    engine: Annotated[
        str,
        typer.Option(
            help="local (this process) or ray (workers of a Ray cluster; the same bytes)."
        ),
    ] = "local"
    workers: Annotated[
        str | None,
        typer.Option(
            metavar="N|N..M",
            help="With --engine ray: how many, or least and most; 1.. (as many as there is room "
            "for) if not given.",
        ),
    ] = None
    num_cpus: Annotated[
        float | None, typer.Option(help="With --engine ray: CPUs of each worker; 1.")
    ] = None
    num_gpus: Annotated[
        float | None,
        typer.Option(help="With --engine ray: GPUs of each worker; 1 for artifacts of GPUs."),
    ] = None
    ray_address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Cluster to run on, e.g. 10.0.0.1:6379 or auto; RAY_ADDRESS, or a cluster of this "
            "machine alone, if not given.",
        ),
    ] = None

    def given(self) -> dict[str, Any] | None:
        """Return what Ray is told, as keywords of ``poolc.ray``; None without it.

        Raises InvalidOption for another engine, and for options of Ray without it.
        """
        from poolc.errors import InvalidOption, meant

        if self.engine not in ENGINES:
            raise InvalidOption(
                f"--engine is {self.engine!r}; allowed: {', '.join(ENGINES)}"
                f"{meant(self.engine, ENGINES)}",
                param="engine",
            )
        named = {"workers": self.workers, "num_cpus": self.num_cpus, "num_gpus": self.num_gpus}
        chosen = {**named, "address": self.ray_address}
        if self.engine == RAY:
            return chosen
        for name, value in chosen.items():
            if value is not None:
                option = "ray-address" if name == "address" else name.replace("_", "-")
                raise InvalidOption(f"--{option} is for --engine ray: add it", param=name)
        return None
