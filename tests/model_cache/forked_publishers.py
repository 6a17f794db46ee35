"""Run by ``python -m``: publish in forked children that are killed, or that race. Prints JSON.

Forking spares each child the start of an interpreter. It happens here and not in the test's own
process because that one may have threads.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from poolc.model_cache.artifact import Artifact
from poolc.model_cache.publish import publish, staging
from poolc.model_cache.store import Store

from .fakes import REPORT, digests, fake_manifest, write_files

KEY = "ab" * 32
_WATCHED = ("open", "write", "close", "fsync", "rename", "replace", "mkdir", "rmdir", "unlink")


def read_files(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def publish_in_store(contents: dict[str, bytes], root: Path) -> Artifact:
    manifest = fake_manifest(digests(contents))
    store = Store(root)
    destination = store.artifact_path(manifest.artifact_id)
    with staging(destination.parent) as staged:
        write_files(staged, contents)
        artifact = publish(staged, manifest, REPORT, destination)
    store.remember(KEY, artifact.artifact_id, {"source": "someone/tiny"})
    return artifact


def die_at(step: int) -> None:
    """Kill this process just before its ``step``-th operation on files; a write is half done."""
    left = step

    def watch(original: Callable[..., Any], halves: bool) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                if halves:
                    original(args[0], bytes(args[1])[: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)

        return call

    for name in _WATCHED:
        setattr(os, name, watch(getattr(os, name), name == "write"))
    fcntl.flock = watch(fcntl.flock, False)


def child(work: Callable[[], object]) -> NoReturn:
    try:
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def kill_at_every_step(contents: dict[str, bytes], prepared: Path, roots: Path) -> list[int]:
    """Publish into copies of ``prepared``, each killed one operation later, until one survives."""
    statuses: list[int] = []
    while not statuses or statuses[-1] == -signal.SIGKILL:
        root = roots / str(len(statuses) + 1)
        write_files(root, read_files(prepared))
        process = os.fork()
        if process == 0:
            die_at(len(statuses) + 1)
            child(partial(publish_in_store, contents, root))
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
    return statuses


def race(contents: dict[str, bytes], root: Path, count: int) -> list[str]:
    """Let ``count`` processes publish the same artifact at the same moment."""
    start, go = os.pipe()
    result, answer = os.pipe()
    processes = []
    for _ in range(count):
        process = os.fork()
        if process == 0:
            os.close(go)

            def work() -> None:
                os.read(start, 1)  # returns when the parent closes the other end
                os.write(answer, publish_in_store(contents, root).artifact_id.encode())

            child(work)
        processes.append(process)
    os.close(go)
    codes = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]
    os.close(answer)
    with open(result, "rb") as file:
        data = file.read().decode()
    ids = [data[begin : begin + 64] for begin in range(0, len(data), 64)]
    return ids if not any(codes) else [f"exit codes {codes}"]


def main() -> None:
    mode, template, *arguments = sys.argv[1:]
    contents = read_files(Path(template))
    os.fsync = lambda fd: None  # a kill loses nothing that was written; the disk is slow
    if mode == "kill":
        done: list[Any] = kill_at_every_step(contents, Path(arguments[0]), Path(arguments[1]))
    else:
        done = race(contents, Path(arguments[0]), int(arguments[1]))
    sys.stdout.write(json.dumps(done))


if __name__ == "__main__":
    main()
