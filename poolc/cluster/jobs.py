"""A bulk job by workers of a Ray cluster: the same files as without one, byte for byte.

The rows are read and cut here and the ledger is kept here; workers compute parts and, where they
reach the output, store them. Knows nothing about how parts are shared out.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from poolc import api
from poolc.bulk import limited
from poolc.cluster.crew import Crew, check_room
from poolc.cluster.dispatch import Dispatch
from poolc.cluster.library import LOCAL, connected, rows_alone
from poolc.cluster.worker import Model
from poolc.cluster.workers import Workers
from poolc.model_cache.artifact import Artifact, is_artifact
from poolc.runtime.bulk import BulkJob, BulkProgress, BulkResult, check
from poolc.runtime.bulk.destination import STDOUT
from poolc.runtime.bulk.parts import Part
from poolc.runtime.bulk.progress import Meter
from poolc.runtime.bulk.run import Sink, run_elsewhere


def run(
    model: str | Path,
    job: BulkJob,
    *,
    workers: Workers,
    address: str | None = None,
    on_progress: Callable[[BulkProgress], None] | None = None,
    on_event: api.OnEvent | None = None,
    **options: Any,
) -> BulkResult:
    """Run a job, or what is left of it, by workers; see ``poolc.runtime.bulk.run``.

    The model is compiled here where it has to be; workers load the artifact from the same path, or
    from their machine's store. ``options`` are those of ``poolc.load``, ``address`` is what
    ``ray.init`` takes (``library.connected``). Raises as ``poolc.bulk.run`` does, MissingDependency
    without Ray, and BackendError where workers cannot be had or end again and again.
    """
    sources = check(job)
    job = limited(job, options.get("memory_limit"))
    listener = api.warn if on_event is None else on_event
    compiling = {name: value for name, value in options.items() if name not in api.LOADING}
    artifact = api.locate(model, on_event=listener, **compiling)
    if not is_artifact(Path(model).expanduser()):
        options = {name: value for name, value in options.items() if name in api.LOADING}
    named = _model(artifact, options)
    target = artifact.manifest.target
    aside = rows_alone() if job.output == STDOUT else nullcontext()
    with aside, connected(address) as ray:
        if (address or os.environ.get("RAY_ADDRESS") or LOCAL) == LOCAL:
            check_room(workers, target, ray.cluster_resources())
        with Crew(workers, named, target, job, listener) as crew:
            first = crew.open()

            def compute(parts: Iterator[Part], sink: Sink, meter: Meter) -> None:
                Dispatch(crew, sink, meter).run(parts)

            return run_elsewhere(compute, first.subject, first.job, sources, on_progress)


def _model(artifact: Artifact, options: Mapping[str, Any]) -> Model:
    return Model(os.path.abspath(artifact.path), artifact.artifact_id, dict(options))
