"""Runs bulk jobs on a local cluster of Ray: one after the other, as a JSON list on argv says.

A job has ``task``, ``model``, ``inputs``, ``output`` and ``options``; ``kill`` is "worker" or
"driver", killed as soon as something is committed; ``unreachable``: workers are not let in to the
output. Prints ``said`` and a JSON list: what each job did, or the error that it raised.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

import ray

from poolc import bulk
from poolc import ray as on_ray
from poolc.cluster.crew import Crew
from poolc.errors import PoolcError
from poolc.runtime.bulk.commit import Commit
from poolc.spec import Task

pids: list[int] = []
begun: list[int] = []
introduced, begin, open_crew = Crew._introduced, Crew._begin, Crew.open
admit = Commit.admit


def note(self: Crew, member: Any, said: Any) -> None:
    if not isinstance(said, PoolcError):
        pids.append(said.pid)
    introduced(self, member, said)


def count(self: Crew) -> None:
    begun.append(1)
    begin(self)


def all_there(self: Crew) -> Any:
    """Begin with all of the first workers: small jobs would end before the second one is ready."""
    first = open_crew(self)
    while self.num_ready() < self._workers.least:
        self.calls.wait(1.0)
    return first


def main() -> None:
    for name, other in (("_introduced", note), ("_begin", count), ("open", all_there)):
        setattr(Crew, name, other)
    ray.init(num_cpus=4, include_dashboard=False, object_store_memory=1 << 28, log_to_driver=False)
    print("\nsaid", json.dumps([run(job) for job in json.loads(sys.argv[1])]), flush=True)


def run(job: dict[str, Any]) -> dict[str, Any]:
    pids.clear()
    begun.clear()
    events: list[str] = []
    progress: list[int] = []
    setattr(Commit, "admit", (lambda self: None) if job.get("unreachable") else admit)  # noqa: B010

    def on_progress(done: bulk.BulkProgress) -> None:
        progress.append(done.num_rows)
        if len(progress) == 1 and job.get("kill") == "driver":
            os.kill(os.getpid(), signal.SIGKILL)
        if len(progress) == 1 and job.get("kill") == "worker":
            os.kill(pids[0], signal.SIGKILL)

    options = job["options"]
    running = {n: options.pop(n) for n in ("workers", "num_cpus") if n in options}
    made = bulk.job_of(Task(job["task"]), job["inputs"], job["output"], options)
    workers = on_ray.workers_of(running)
    try:
        result = on_ray.run(
            job["model"],
            made,
            workers=workers,
            on_progress=on_progress,
            on_event=lambda event: events.append(str(event.get("message"))),
        )
    except PoolcError as error:
        return {"error": type(error).__name__, "message": str(error), "events": events}
    return {
        "rows": result.num_rows,
        "failed": result.num_failed,
        "resumed": result.num_resumed,
        "tokens": result.num_tokens,
        "progress": progress,
        "workers": len(set(pids)),
        "begun": len(begun),
        "events": events,
    }


main()
