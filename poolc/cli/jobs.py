"""``poolc embed``, ``classify``, ``score``, ``reward`` and ``encode``: files in, files out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poolc.cli.exit_codes import SOME_ROWS_FAILED
from poolc.cli.file_arguments import (
    EngineArguments,
    FileArguments,
    Inputs,
    Output,
    PairInputs,
    RunArguments,
    TextColumn,
)
from poolc.cli.groups import grouped
from poolc.cli.job_arguments import (
    ClassifiedPairColumns,
    CutArguments,
    EmbedArguments,
    HeadArguments,
    LengthArguments,
    PairArguments,
    PairColumns,
    UseActivation,
)
from poolc.cli.options import CompileArguments, LoadArguments, Model
from poolc.cli.reporting import JsonEvents, Reporter, done_line, progress_of_rows, result_fields

if TYPE_CHECKING:
    from poolc.runtime.bulk import BulkJob, BulkResult
    from poolc.runtime.request import Params
    from poolc.spec import Task


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
    files: FileArguments,
    running: RunArguments,
    engine: EngineArguments,
    loading: LoadArguments,
    compiling: CompileArguments,
) -> None:
    """Embed every text of the inputs, to whatever the model embeds to."""
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
    job = _job(heads.task(), inputs, output, _Said({"text": text_column}, params, files, running))
    _run(model, job, _How(running, engine, {**compiling.given(), **loading.given()}))


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
    files: FileArguments,
    running: RunArguments,
    engine: EngineArguments,
    loading: LoadArguments,
    compiling: CompileArguments,
) -> None:
    """Classify every text (or pair of texts) of the inputs, or the tokens of each, as the model
    does."""
    from poolc.runtime.request import Params
    from poolc.spec import Task

    params = Params(
        **lengths.params(),
        **reading.params(),
        use_activation=use_activation,
        aggregation=aggregation,
    )
    where = {"text": text_column, "left": columns.left_column, "right": columns.right_column}
    job = _job(Task.CLASSIFY, inputs, output, _Said(where, params, files, running))
    _run(model, job, _How(running, engine, {**compiling.given(), **loading.given()}))


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
    files: FileArguments,
    running: RunArguments,
    engine: EngineArguments,
    loading: LoadArguments,
    compiling: CompileArguments,
) -> None:
    """Score every pair of texts of the inputs."""
    from poolc.runtime.request import Params
    from poolc.spec import Task

    params = Params(
        label=label,
        **lengths.params(),
        **reading.params(),
        chunk=lengths.chunk,
        use_activation=use_activation,
    )
    where = {"left": columns.left_column, "right": columns.right_column}
    job = _job(Task.SCORE, inputs, output, _Said(where, params, files, running))
    _run(model, job, _How(running, engine, {**compiling.given(), **loading.given()}))


@grouped
def reward(
    model: Model,
    inputs: Inputs,
    output: Output,
    *,
    text_column: TextColumn = "text",
    columns: ClassifiedPairColumns,
    lengths: CutArguments,
    use_activation: UseActivation = None,
    step_tag_id: Annotated[
        int | None, typer.Option(help="Token whose positions are rewarded, of process rewards.")
    ] = None,
    files: FileArguments,
    running: RunArguments,
    engine: EngineArguments,
    loading: LoadArguments,
    compiling: CompileArguments,
) -> None:
    """Reward every text (or pair of texts) of the inputs, its tokens or its steps, as the model
    does."""
    from poolc.runtime.request import Params
    from poolc.spec import Task

    params = Params(**lengths.params(), use_activation=use_activation, step_tag_id=step_tag_id)
    where = {"text": text_column, "left": columns.left_column, "right": columns.right_column}
    job = _job(Task.REWARD, inputs, output, _Said(where, params, files, running))
    _run(model, job, _How(running, engine, {**compiling.given(), **loading.given()}))


@grouped
def encode(
    model: Model,
    inputs: Inputs,
    output: Output,
    *,
    text_column: TextColumn = "text",
    lengths: CutArguments,
    dimensions: Annotated[int | None, typer.Option(help="Size that vectors are cut to.")] = None,
    normalize: Annotated[
        bool, typer.Option("--normalize", help="Scale every token's vector to unit length.")
    ] = False,
    side: Annotated[
        str | None, typer.Option(help="Route of models that have one a side: query or document.")
    ] = None,
    files: FileArguments,
    running: RunArguments,
    engine: EngineArguments,
    loading: LoadArguments,
    compiling: CompileArguments,
) -> None:
    """Write the last hidden states of every text of the inputs, one row a token."""
    from poolc.runtime.request import Params
    from poolc.spec import Task

    params = Params(
        **lengths.params(), dimensions=dimensions, normalize=normalize or None, side=side
    )
    job = _job(Task.ENCODE, inputs, output, _Said({"text": text_column}, params, files, running))
    _run(model, job, _How(running, engine, {**compiling.given(), **loading.given()}))


@dataclass(frozen=True, slots=True)
class _Said:
    """What the options of a job said."""

    where: dict[str, Any]  # fields of Columns
    params: Params
    files: FileArguments
    running: RunArguments


def _job(task: Task, inputs: list[str], output: str, said: _Said) -> BulkJob:
    from poolc.runtime.bulk import BulkJob, Columns, Settings

    files, running = said.files, said.running
    settings = Settings(
        input_format=files.input_format,
        output_format=files.output_format,
        dedupe=running.dedupe,
        strict=running.strict,
        append=running.append,
        allow_precision_mix=running.allow_precision_mix,
        restart=running.restart,
        allow_different_host=running.allow_different_host,
    )
    if running.part_rows is not None:
        settings = replace(settings, part_rows=running.part_rows)
    columns = Columns(**said.where, id=files.id_column, keep=files.kept)
    return BulkJob(task, tuple(inputs), output, columns, said.params, settings)


@dataclass(frozen=True, slots=True)
class _How:
    """How a job runs; ``options`` are those of ``poolc.load``."""

    running: RunArguments
    engine: EngineArguments
    options: dict[str, Any]


def _run(model: str, job: BulkJob, how: _How) -> None:
    from poolc.runtime.bulk import check

    check(job)  # a wrong file name should not wait for a compile
    run = _runner(how.engine)
    as_json = how.running.as_json
    reporter = JsonEvents() if as_json else Reporter()
    with reporter as on_event, progress_of_rows(as_json=as_json) as on_progress:
        result = run(model, job, on_event=on_event, on_progress=on_progress, **how.options)
    if as_json:
        reporter({"event": "done", **result_fields(result)})
    else:
        typer.echo(done_line(result), err=True)
    if result.num_failed:
        raise typer.Exit(SOME_ROWS_FAILED)


def _runner(engine: EngineArguments) -> Callable[..., BulkResult]:
    given = engine.given()
    if given is None:
        from poolc import bulk

        return bulk.run
    from poolc import ray

    return partial(ray.run, workers=ray.workers_of(given), address=given["address"])
