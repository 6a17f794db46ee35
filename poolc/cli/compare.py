"""``poolc compare``: what moving from one model to another changes, on texts of one's own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poolc.cli.exit_codes import BEYOND_THRESHOLD
from poolc.cli.file_arguments import TextColumn
from poolc.cli.groups import grouped
from poolc.cli.job_arguments import PairColumns
from poolc.cli.options import LoadArguments, json_object
from poolc.cli.reporting import Reporter

if TYPE_CHECKING:
    from poolc.compare import Comparison, Threshold

First = Annotated[
    str, typer.Argument(metavar="A", help="An artifact, or an original: a model folder or hub id.")
]
Second = Annotated[str, typer.Argument(metavar="B", help="What A is compared with: as A.")]
DataFile = Annotated[
    str,
    typer.Option(
        metavar="FILE",
        help="Texts, one a line, or JSON lines, CSV, Parquet, Arrow with a column of texts or two "
        "of pairs. A column label of texts or score of pairs measures quality.",
    ),
]


@dataclass(frozen=True, slots=True)
class SampleArguments:
    """What of the texts is compared, and how long."""

    dimensions: Annotated[
        int | None, typer.Option(help="Cut the vectors of both (Matryoshka) to so many numbers.")
    ] = None
    label: Annotated[
        str | None, typer.Option(help="Which label a score is, where a model has several.")
    ] = None
    queries: Annotated[
        int, typer.Option(help="Texts, sampled, whose nearest others are compared.")
    ] = 500
    neighbours: Annotated[int, typer.Option(help="How many nearest ones are compared.")] = 10
    seed: Annotated[int, typer.Option(help="Of the samples.")] = 0
    limit: Annotated[int | None, typer.Option(help="Read only so many rows.")] = None
    seconds: Annotated[
        float, typer.Option(help="How long speed is measured, about; 0: not at all.")
    ] = 10.0


@dataclass(frozen=True, slots=True)
class ThresholdArguments:
    """Which figures end the command with another exit code."""

    fail_under: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIGURE=NUMBER",
            help="Exit with 12 where a figure is less: cosine=0.999; repeat for more figures.",
        ),
    ] = None
    fail_over: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIGURE=NUMBER",
            help="Exit with 12 where a figure is more: max_difference=0.01; repeat for more.",
        ),
    ] = None

    def thresholds(self) -> list[Threshold]:
        """Return what was given. Raises InvalidOption."""
        from poolc.compare import Threshold

        least = [Threshold.parse(text, at_most=False) for text in self.fail_under or ()]
        return [*least, *(Threshold.parse(text, at_most=True) for text in self.fail_over or ())]


@dataclass(frozen=True, slots=True)
class OriginalArguments:
    """What an original model is; artifacts were told when they were compiled."""

    revision: Annotated[
        str | None, typer.Option(help="Of an original: branch, tag or commit on the hub.")
    ] = None
    pooler_config: Annotated[
        str | None, typer.Option(metavar="JSON", help="Of an original: pooling, as for compile.")
    ] = None
    trust_remote_code: Annotated[
        bool,
        typer.Option("--trust-remote-code", help="Of an original: run Python code in its folder."),
    ] = False

    def given(self) -> dict[str, Any]:
        """Return what was given, as keywords of ``poolc.compile``. Raises InvalidOption."""
        values = {
            "revision": self.revision,
            "pooler_config": json_object("--pooler-config", self.pooler_config),
            "trust_remote_code": self.trust_remote_code or None,
        }
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True)
class ShowArguments:
    """How what was found is shown."""

    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with plots, too.")
    ] = None


@grouped
def compare(
    first: First,
    second: Second,
    data: DataFile,
    *,
    text_column: TextColumn = "text",
    columns: PairColumns,
    samples: SampleArguments,
    bounds: ThresholdArguments,
    showing: ShowArguments,
    original: OriginalArguments,
    loading: LoadArguments,
) -> None:
    """Compare two models on the same texts: vectors, neighbours, labels, quality and speed."""
    from poolc.compare import Settings
    from poolc.compare import compare as run
    from poolc.runtime.bulk import Columns

    thresholds = bounds.thresholds()
    settings = Settings(
        dimensions=samples.dimensions,
        queries=samples.queries,
        neighbours=samples.neighbours,
        seed=samples.seed,
        seconds=samples.seconds,
        limit=samples.limit,
        label=samples.label,
        columns=Columns(text_column, columns.left_column, columns.right_column),
    )
    options = {"loading": loading.given(), "compiling": original.given()}
    with Reporter() as on_event:
        found = run(first, second, data, settings, **options, on_event=on_event)
    figures = found.figures()
    broken = [line for one in thresholds if (line := one.broken_by(figures)) is not None]
    _show(found, broken, showing)
    if broken:
        raise typer.Exit(BEYOND_THRESHOLD)


def _show(found: Comparison, broken: Sequence[str], how: ShowArguments) -> None:
    from poolc.compare.page import page
    from poolc.compare.table import table

    if how.as_json:
        typer.echo(json.dumps({**found.to_plain(), "broken": list(broken)}))
    else:
        typer.echo(table(found))
    if how.html is not None:
        how.html.write_text(page(found, broken), encoding="utf-8")
    for line in broken:
        typer.echo(f"error: {line}", err=True)
