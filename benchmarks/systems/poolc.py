"""poolc, from a compiled artifact: ``embed`` and ``score`` as documented, nothing to set.

``--prepare`` compiles, so it needs the environment with the compiler; the rest runs without it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import poolc
from benchmarks.systems.protocol import Items, Job, Setting, columns, serve


class Poolc:
    """An engine."""

    def __init__(self, job: Job) -> None:
        self.settings: list[Setting] = [{}]
        self._engine = poolc.load(artifact(job))
        self._pairs = job.task == "score"

    def run(self, items: Items, setting: Setting) -> Any:
        """Embed or score."""
        if self._pairs:
            return self._engine.score(*columns(items), truncate=True)
        return self._engine.embed(items, truncate=True)


def artifact(job: Job) -> Path:
    """Return where the artifact of a job lies: the variant is the precision."""
    return Path(job.folder) / f"artifact-{job.variant}"


def prepare(job: Job) -> None:
    """Compile."""
    path = artifact(job)
    if path.exists():
        shutil.rmtree(path)
    # Anew: the store may hold what an earlier state of this checkout compiled.
    poolc.compile(
        job.model, output=path, precision=job.variant, max_length=job.max_length, refresh=True
    )


if __name__ == "__main__":
    serve(Poolc, prepare)
