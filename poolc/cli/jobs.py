"""``poolc embed``, ``poolc classify`` and ``poolc score``: files in, files out."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from poolc.cli.groups import grouped
from poolc.cli.job_arguments import (
    ClassifiedPairColumns,
    CutArguments,
    EmbedArguments,
    HeadArguments,
    Inputs,
    LengthArguments,
    Output,
    PairArguments,
    PairColumns,
    PairInputs,
    TextColumn,
    UseActivation,
)
from poolc.cli.options import CompileArguments, LoadArguments, Model
from poolc.cli.reporting import Reporter, progress_of_rows

if TYPE_CHECKING:
    from poolc.runtime.bulk import BulkJob


@grouped
def embed(
    model: Model,
    inputs: Inputs,
    output: Output,
    *,
    text_column: TextColumn = "text",
    lengths: LengthArguments,
    vectors: EmbedArguments,
    heads: HeadArguments,
    loading: LoadArguments,
    compiling: CompileArguments,
) -> None:
    """Embed every text of the inputs, to whatever the model embeds to."""
    from poolc.runtime.bulk import BulkJob, Columns
    from poolc.runtime.request import Params

    params = Params(
        dimensions=vectors.dimensions,
        normalize=False if vectors.no_normalize else None,
        prompt_name=vectors.prompt_name,
        prompt=vectors.prompt,
        **lengths.params(),
        chunk=lengths.chunk,
        output_dtype=vectors.output_dtype,
        side=heads.side,
        top_k=heads.top_k,
    )
    job = BulkJob(heads.task(), tuple(inputs), output, Columns(text_column), params)
    _run(model, compiling, job, loading)


@grouped
def classify(
    model: Model,
    inputs: Inputs,
    output: Output,
    *,
    text_column: TextColumn = "text",
    columns: ClassifiedPairColumns,
    reading: PairArguments,
    lengths: CutArguments,
    use_activation: UseActivation = None,
    aggregation: Annotated[
        str | None,
        typer.Option(
            help="Of models that label tokens: simple (the default), first, average and max give "
            "spans, none the probabilities of every token.",
        ),
    ] = None,
    loading: LoadArguments,
    compiling: CompileArguments,
) -> None:
    """Classify every text (or pair of texts) of the inputs, or the tokens of each, as the model
    does."""
    from poolc.runtime.bulk import BulkJob, Columns
    from poolc.runtime.request import Params
    from poolc.spec import Task

    params = Params(
        **lengths.params(),
        **reading.params(),
        use_activation=use_activation,
        aggregation=aggregation,
    )
    where = Columns(text_column, columns.left_column, columns.right_column)
    job = BulkJob(Task.CLASSIFY, tuple(inputs), output, where, params)
    _run(model, compiling, job, loading)


@grouped
def score(
    model: Model,
    inputs: PairInputs,
    output: Output,
    *,
    columns: PairColumns,
    reading: PairArguments,
    label: Annotated[
        str | None, typer.Option(help="Which label a score is, where the model has several.")
    ] = None,
    lengths: LengthArguments,
    use_activation: UseActivation = None,
    loading: LoadArguments,
    compiling: CompileArguments,
) -> None:
    """Score every pair of texts of the inputs."""
    from poolc.runtime.bulk import BulkJob, Columns
    from poolc.runtime.request import Params
    from poolc.spec import Task

    params = Params(
        label=label,
        **lengths.params(),
        **reading.params(),
        chunk=lengths.chunk,
        use_activation=use_activation,
    )
    where = Columns(left=columns.left_column, right=columns.right_column)
    _run(model, compiling, BulkJob(Task.SCORE, tuple(inputs), output, where, params), loading)


def _run(model: str, compiling: CompileArguments, job: BulkJob, loading: LoadArguments) -> None:
    from poolc import api
    from poolc.runtime import bulk

    bulk.check(job)  # a wrong file name should not wait for a compile
    options = {**compiling.given(), **loading.given()}
    with Reporter() as on_event:
        engine = api.load(model, on_event=on_event, **options)
    job = bulk.job_for_model(engine, job)
    start = time.perf_counter()
    with progress_of_rows() as on_progress:
        result = bulk.run(engine, job, on_progress)
    took = time.perf_counter() - start
    where = "standard output" if result.output == "-" else result.output
    cut = result.meta.get("rows_truncated", 0)
    shortened = f", {cut} of them truncated," if cut else ""
    typer.echo(
        f"{result.num_rows} rows{shortened} to {where} in {took:.2f} s (artifact "
        f"{engine.artifact.artifact_id[:12]}, space {engine.artifact.space_id[:12]})",
        err=True,
    )
