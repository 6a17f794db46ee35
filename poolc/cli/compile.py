"""``poolc compile``: a model in, an artifact out, with the time of each stage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poolc.cli.groups import grouped
from poolc.cli.options import AsJson, CompileArguments, Model
from poolc.cli.reporting import Reporter

if TYPE_CHECKING:
    from poolc.api import CompileResult

Output = Annotated[
    Path | None,
    typer.Option("--output", metavar="DIR", help="The folder to make; the store if not given."),
]


@grouped
def compile_model(
    model: Model, *, output: Output = None, as_json: AsJson = False, compiling: CompileArguments
) -> None:
    """Compile a model folder or hub id into a verified artifact."""
    from poolc import api

    options = compiling.given()
    with Reporter() as on_event:
        result = api.compile(model, output=output, on_event=on_event, **options)
    if as_json:
        import json

        typer.echo(json.dumps(_plain(result), indent=2))
        return
    if result.reused:
        typer.echo("already compiled with these options", err=True)
    typer.echo(f"artifact  {result.path}")
    typer.echo(f"id        {result.artifact_id}")
    typer.echo(f"space     {result.space_id}")
    typer.echo(f"parity    {parity_line(result.report.get('parity', {}))}")


def parity_line(parity: dict[str, Any]) -> str:
    """Say in one line how far an artifact is from its reference."""
    if not parity:
        return "not recorded"
    cosine = parity.get("worst_cosine")
    return (
        f"max error {parity['max_relative_error']:.1e} (bound {parity['bound']:.0e}) on "
        f"{parity['texts']} texts of up to {parity['longest_tokens']} tokens against "
        f"{parity['reference']}" + ("" if cosine is None else f", worst cosine {cosine:.7f}")
    )


def _plain(result: CompileResult) -> dict[str, Any]:
    return {
        "path": str(result.path),
        "artifact_id": result.artifact_id,
        "space_id": result.space_id,
        "reused": result.reused,
        "seconds": dict(result.seconds),
        "parity": result.report.get("parity"),
        "warnings": result.report.get("warnings", []),
    }
