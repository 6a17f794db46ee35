"""``poolc compile``: a model in, an artifact out, with the time of each stage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    typer.Option(
        "--output", "-o", metavar="DIR", help="The folder to make; the store if not given."
    ),
]
Quality = Annotated[
    Path | None,
    typer.Option(
        "--quality",
        metavar="FILE",
        help="Labelled texts to measure the artifact on, before and after a change of precision: "
        "JSON lines of sentence1, sentence2 and score, or of text and label.",
    ),
]

_QUANTIZED = ("int8", "fp8")  # precisions whose products are quantised


@grouped
def compile_model(
    model: Model,
    *,
    output: Output = None,
    quality: Quality = None,
    as_json: AsJson = False,
    compiling: CompileArguments,
) -> None:
    """Compile a model folder or hub id into a verified artifact."""
    from poolc import api

    options = compiling.given()
    with Reporter() as on_event:
        result = api.compile(model, output=output, quality=quality, on_event=on_event, **options)
    if as_json:
        import json

        typer.echo(json.dumps(_plain(result), indent=2))
        return
    if result.reused:
        typer.echo("already compiled with these options", err=True)
    typer.echo(f"artifact  {result.path}")
    typer.echo(f"id        {result.artifact_id}")
    typer.echo(f"space     {result.space_id}")
    for name, line in evidence(result.report):
        typer.echo(f"{name:<8}  {line}")


def evidence(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what a report says of an artifact's numbers: a name and a line each."""
    yield "parity", parity_line(report.get("parity", {}))
    for precision in _QUANTIZED:
        yield from _quantized(precision, report.get(precision, {}))
    yield from _memory(report.get("memory", {}))
    quality = dict(report.get("quality", {}))
    file = quality.pop("file", "")
    for metric, values in quality.items():
        shown = ", ".join(f"{precision} {value:.2f}" for precision, value in values.items())
        yield "quality", f"{metric.replace('_', ' ')} on {file}: {shown}"


def _quantized(precision: str, quantized: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield how far each route is from fp32, and what its products became."""
    for route, found in quantized.get("routes", {}).items():
        kinds = ", ".join(f"{count} {kind}" for kind, count in found["schemes"].items() if count)
        of_route = "" if route == "main" else f" ({route})"
        yield (
            precision,
            f"cosine to fp32 {found['mean_cosine']:.4f}, worst {found['worst_cosine']:.4f} on "
            f"texts that calibration did not see; {kinds}; {quantized['kernels']}{of_route}",
        )


def _memory(memory: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the peaks that were measured, and what the longest text is estimated to take."""
    if not memory:
        return
    points = sorted((int(tokens), size) for tokens, size in memory["peak_bytes"].items())
    peaks = ", ".join(f"{size / 1e6:,.0f} MB at {tokens:,} tokens" for tokens, size in points)
    longest, estimate = memory["longest_tokens"], memory["longest_estimate_bytes"]
    yield "memory", f"peak {peaks}; estimated {estimate / 1e6:,.0f} MB at {longest:,}"


def parity_line(parity: Mapping[str, Any]) -> str:
    """Say in one line how far an artifact is from its reference."""
    if not parity:
        return "not recorded"
    texts = f"{parity['texts']} texts of up to {parity['longest_tokens']} tokens"
    if parity.get("scope") == "canonical-only":  # what the device makes of it is not known yet
        texts += ", of the graph it is made from, on the CPU"
    error = f"max error {parity['max_relative_error']:.1e} (bound {parity['bound']:.0e})"
    worst, mean, bounds = (
        parity.get(key) for key in ("worst_cosine", "mean_cosine", "cosine_bounds")
    )
    if worst is None:
        return f"{error} on {texts} against {parity['reference']}"
    if bounds is None:
        return f"{error} on {texts} against {parity['reference']}, worst cosine {worst:.7f}"
    return (
        f"cosine to {parity['reference']} on {texts}: mean {mean:.4f} (bound {bounds[0]:g}), "
        f"worst {worst:.4f} (bound {bounds[1]:g})"
    )


def _plain(result: CompileResult) -> dict[str, Any]:
    return {
        "path": str(result.path),
        "artifact_id": result.artifact_id,
        "space_id": result.space_id,
        "reused": result.reused,
        "seconds": dict(result.seconds),
        "parity": result.report.get("parity"),
        "int8": result.report.get("int8"),
        "fp8": result.report.get("fp8"),
        "quality": result.report.get("quality"),
        "warnings": result.report.get("warnings", []),
    }
