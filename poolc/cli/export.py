"""``poolc export``: an artifact as what another server or library runs. Parses and prints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poolc.cli.groups import grouped
from poolc.cli.options import CompileArguments, Model
from poolc.cli.reporting import Reporter

if TYPE_CHECKING:
    from poolc.model_cache.artifact import Artifact

_TRITON_EXAMPLES = """\b
Examples:
  poolc export triton minilm -o repository
  poolc export triton minilm -o repository --name embedder --instances 4
  poolc export triton BAAI/bge-reranker-base -o repository --truncate
"""
_ST_EXAMPLES = """\b
Examples:
  poolc export sentence-transformers minilm -o folder
  poolc export sentence-transformers minilm -o folder --force
"""

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Write an artifact as what another server or library runs.",
    epilog=_TRITON_EXAMPLES + "  poolc export sentence-transformers minilm -o folder\n",
)

Output = Annotated[
    Path, typer.Option("--output", "-o", metavar="FOLDER", help="The folder to make.")
]
Force = Annotated[
    bool, typer.Option("--force", help="Replace an earlier export; never anything else.")
]


@app.callback()
def _group() -> None:
    """Write an artifact as what another server or library runs."""


def triton(
    model: Model,
    *,
    output: Output,
    name: Annotated[
        str | None,
        typer.Option(help="What clients call the model; by its source if not given."),
    ] = None,
    instances: Annotated[
        int | None,
        typer.Option(help="Copies that run side by side; on a CPU one a core of this machine."),
    ] = None,
    max_batch_size: Annotated[
        int | None, typer.Option(help="Most texts of a request, and of a batch.")
    ] = None,
    queue_delay_us: Annotated[
        int, typer.Option(help="Microseconds that a request waits for others.")
    ] = 0,
    truncate: Annotated[
        bool,
        typer.Option("--truncate", help="Cut what is too long where a request does not say."),
    ] = False,
    pairs: Annotated[
        bool | None,
        typer.Option(
            "--pairs/--texts",
            help="Whether a classifier reads pairs (query, document) or single texts; as the "
            "model says if not given.",
        ),
    ] = None,
    force: Force = False,
    compiling: CompileArguments,
) -> None:
    """Write a model repository of Triton Inference Server: tokenizer, model and an ensemble."""
    from poolc.export.triton import TritonOptions, export_triton

    options = TritonOptions(name, instances, max_batch_size, queue_delay_us, truncate, pairs)
    names = export_triton(_open(model, compiling.given()), output, options, force=force)
    typer.echo(f"{output}: serve it with `tritonserver --model-repository {output}`, and ask")
    typer.echo(f"the model {names.ensemble}; README.md there has an example")


def sentence_transformers(
    model: Model, *, output: Output, force: Force = False, compiling: CompileArguments
) -> None:
    """Write a folder that Sentence Transformers loads with backend="onnx"."""
    from poolc.export.sentence_transformers import export_sentence_transformers

    export_sentence_transformers(_open(model, compiling.given()), output, force=force)
    typer.echo(f'{output}: load it with backend="onnx"; README.md there has an example')


app.command("triton", epilog=_TRITON_EXAMPLES)(grouped(triton))
app.command("sentence-transformers", epilog=_ST_EXAMPLES)(grouped(sentence_transformers))


def _open(model: str, options: dict[str, Any]) -> Artifact:
    from poolc import api

    with Reporter() as on_event:
        return api.open_model(model, on_event=on_event, **options)
