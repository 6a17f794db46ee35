"""Ray from Python: bulk jobs by a cluster, columns of Ray Data, replicas of Ray Serve.

    poolc.ray.embed("minilm", "docs/*.parquet", "vectors/", workers="1..8")
    dataset.map_batches(poolc.ray.Embedder, fn_constructor_args=["minilm"], concurrency=(1, 8))
    serve.run(poolc.ray.app({"models": ["minilm"]}))

``embed``, ``classify``, ``score``, ``reward`` and ``encode`` are those of ``poolc.bulk``, with
``workers`` and what each of them gets. Knows how keywords become a job; the work is
``poolc/cluster``. Importing it imports no Ray.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from poolc import api
from poolc.bulk import Inputs, job_of
from poolc.cluster import jobs
from poolc.cluster.datasets import Classifier, Embedder, Encoder, Rewarder, Scorer
from poolc.cluster.workers import Workers, parse_workers
from poolc.errors import InvalidOption, MissingDependency
from poolc.runtime.bulk import BulkJob, BulkProgress, BulkResult
from poolc.runtime.engine import Engine
from poolc.spec import Task

__all__ = [
    "Classifier",
    "Embedder",
    "Encoder",
    "Rewarder",
    "Scorer",
    "Workers",
    "app",
    "classify",
    "embed",
    "encode",
    "reward",
    "run",
    "score",
]

_LOADING = ("memory_limit", "device")
_RUNNING = ("workers", "num_cpus", "num_gpus", "resources", "address")


def embed(model: str | Path, inputs: Inputs, output: str | Path, **options: Any) -> BulkResult:
    """Embed every text of the inputs by workers of a Ray cluster.

    Everything that ``poolc.bulk.embed`` takes, and: ``workers``, how many (4), or least and most
    ("1..8", (1, 8); "1..", the default: as many as there is room for); ``num_cpus`` (1) and
    ``num_gpus`` of each; ``resources``, as ``ray.remote`` takes them; ``address`` of the cluster.
    The output has the bytes that it has without Ray, and a job that was cut short goes on with or
    without it. Raises as ``poolc.bulk.embed`` does, and MissingDependency without Ray.
    """
    return _start(Task.EMBED, model, inputs, output, options)


def classify(model: str | Path, inputs: Inputs, output: str | Path, **options: Any) -> BulkResult:
    """Classify every text, or pair of texts; options as ``embed``."""
    return _start(Task.CLASSIFY, model, inputs, output, options)


def score(model: str | Path, inputs: Inputs, output: str | Path, **options: Any) -> BulkResult:
    """Score every pair of texts of the inputs; options as ``embed``."""
    return _start(Task.SCORE, model, inputs, output, options)


def reward(model: str | Path, inputs: Inputs, output: str | Path, **options: Any) -> BulkResult:
    """Reward every text, its tokens or its steps, as the model does; options as ``embed``."""
    return _start(Task.REWARD, model, inputs, output, options)


def encode(model: str | Path, inputs: Inputs, output: str | Path, **options: Any) -> BulkResult:
    """Write the last hidden states of every text, one row a token; options as ``embed``."""
    return _start(Task.ENCODE, model, inputs, output, options)


def run(
    model: str | Path,
    job: BulkJob,
    *,
    workers: Workers | None = None,
    address: str | None = None,
    on_progress: Callable[[BulkProgress], None] | None = None,
    on_event: api.OnEvent | None = None,
    **options: Any,
) -> BulkResult:
    """Run a job by workers of a Ray cluster; ``options`` are those of ``poolc.load``.

    Raises InvalidOption for a loaded engine: workers load their own.
    """
    if isinstance(model, Engine):
        raise InvalidOption("workers load the model themselves: give its name, not an engine")
    return jobs.run(
        model,
        job,
        workers=Workers() if workers is None else workers,
        address=address,
        on_progress=on_progress,
        on_event=on_event,
        **options,
    )


def app(args: Mapping[str, Any]) -> Any:
    """Return an application of Ray Serve that answers as ``poolc serve`` does.

    For ``serve.run``, and as ``import_path: poolc.ray:app`` of a config of Ray Serve. ``args`` has
    ``models``, settings of ``poolc serve``, options of ``poolc.load``, and ``deployment``, options
    of ``serve.deployment``; see ``cluster/deployment.py``. Raises InvalidOption, and
    MissingDependency without the ray extra.
    """
    try:
        from poolc.cluster import deployment
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f'serving on Ray needs {error.name}, which is not installed: pip install "poolc[ray]"'
        ) from error
    return deployment.app(args)


def _start(
    task: Task,
    model: str | Path,
    inputs: Inputs,
    output: str | Path,
    options: dict[str, Any],
) -> BulkResult:
    on_progress = options.pop("on_progress", None)
    loading = {name: options.pop(name) for name in _LOADING if name in options}
    running = {name: options.pop(name) for name in _RUNNING if name in options}
    job = job_of(task, inputs, output, options, *_RUNNING)
    return run(
        model,
        job,
        workers=workers_of(running),
        address=running.get("address"),
        on_progress=on_progress,
        **loading,
    )


def workers_of(given: Mapping[str, Any]) -> Workers:
    """Return the workers that keywords describe; None means not given. Raises InvalidOption."""
    chosen = {
        n: given[n] for n in ("num_cpus", "num_gpus", "resources") if given.get(n) is not None
    }
    if given.get("workers") is not None:
        chosen["least"], chosen["most"] = parse_workers(given["workers"])
    return Workers(**chosen)
