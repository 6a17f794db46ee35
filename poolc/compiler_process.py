"""Running the compiler in a process of its own: the request in, events and the result out."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from poolc import errors
from poolc.errors import CompileError
from poolc.model_cache.serde import to_plain
from poolc.spec import CompileOptions

if TYPE_CHECKING:
    import subprocess

LOG_TAIL_LINES = 15
# What to do where the folder that an artifact goes to takes no files.
_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some"),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "make it writable"),
}


@dataclass(frozen=True, slots=True)
class Job:
    """What to compile, how, and where to (``output`` None: the store). ``refresh``: ask the hub.

    ``quality``: a file of labelled texts to measure the artifact on. ``rebuild``: ``model`` is an
    artifact whose engines are to be built again for this machine's GPU ``device``.
    """

    model: str
    options: CompileOptions
    store: Path
    output: Path | None = None
    refresh: bool = False
    quality: Path | None = None
    rebuild: bool = False
    device: int = 0

    def to_json(self) -> str:
        """Return what the compiler reads from its standard input."""
        output, quality = (
            None if path is None else str(path.expanduser().resolve())
            for path in (self.output, self.quality)
        )
        return json.dumps(
            {
                "model": self.model,
                "options": to_plain(self.options),
                "store": str(self.store),
                "output": output,
                "refresh": self.refresh,
                "quality": quality,
                "rebuild": self.rebuild,
                "device": self.device,
            }
        )


@dataclass(frozen=True, slots=True)
class Done:
    """Where the artifact lies, and seconds by stage."""

    path: Path
    seconds: dict[str, float]


def run(job: Job, on_event: Callable[[dict[str, Any]], None] | None = None) -> Done:
    """Compile in a subprocess and wait for it.

    Raises the error that the compiler raised, by its class in ``poolc.errors``; CompileError with
    the end of its log where it died without one.
    """
    import subprocess  # only here: a cold start without it is 5 ms shorter

    receive, send = os.pipe()
    with (
        os.fdopen(receive, encoding="utf-8") as events,
        subprocess.Popen(
            [sys.executable, "-m", "poolc.compiler", str(send)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(send,),
            env=environment(),
            encoding="utf-8",
            errors="replace",
        ) as process,
    ):
        os.close(send)
        log: deque[str] = deque(maxlen=LOG_TAIL_LINES)
        drain = threading.Thread(target=log.extend, args=(process.stdout,), daemon=True)
        drain.start()
        try:
            tell(process, job.to_json(), last=True)
            last = _last_event(events, on_event)
        except BaseException:  # an interrupt, or a callback that raised: do not leave it running
            process.kill()
            raise
        drain.join()
    return _outcome(job, last, process.returncode, log)


def tell(process: subprocess.Popen[str], text: str, *, last: bool = False) -> None:
    """Write to a process's standard input, and close it after the ``last`` text."""
    if process.stdin is None:
        raise CompileError("the compiler has no standard input; this is a bug in poolc")
    # A child that died at once closes the pipe; its exit code and log say why.
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(text)
        process.stdin.flush()
    if last:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()


def _last_event(
    events: TextIO, on_event: Callable[[dict[str, Any]], None] | None
) -> dict[str, Any] | None:
    for line in events:
        if not line.endswith("\n"):  # killed in the middle of a word
            break
        event: dict[str, Any] = json.loads(line)
        if event["event"] in ("result", "error"):
            return event
        if on_event is not None:
            on_event(event)
    return None


def _outcome(job: Job, last: dict[str, Any] | None, code: int | None, log: deque[str]) -> Done:
    if last is None:
        tail = "".join(log).strip()
        raise CompileError(f"the compiler stopped (exit code {code}) without a result:\n{tail}")
    if last["event"] == "error":
        error = raised(last, log)
        raise _remedied(error, job) if isinstance(error, OSError) else error
    return Done(Path(last["path"]), last["seconds"])


def raised(event: dict[str, Any], log: deque[str]) -> Exception:
    """Return the error that an ``error`` event tells of, by its class in ``poolc.errors``."""
    error: Exception
    if event["type"] != "OSError":
        error = getattr(errors, event["type"], CompileError)(event["message"])
    elif event.get("errno") is None:
        error = OSError(event["message"])
    else:
        error = OSError(event["errno"], event["strerror"], event["filename"])
    error.add_note("".join(log).strip())  # shown with the traceback only
    return error


def _remedied(error: OSError, job: Job) -> OSError:
    """Say what to do about a file that could not be written where the artifact goes."""
    place = job.store if job.output is None else job.output.expanduser().resolve().parent
    # Who writes to a full disk is not told the name of the file.
    is_there = error.filename is None or Path(error.filename).is_relative_to(place)
    remedy = _REMEDIES.get(error.errno or 0)
    if remedy is None or not is_there:
        return error
    other = "set POOLC_CACHE to another folder" if job.output is None else "name another output"
    said = f"{error.strerror} while compiling into {place}: {remedy}, or {other}"
    told = OSError(error.errno, said)
    for note in error.__notes__:
        told.add_note(note)
    return told


def environment() -> dict[str, str]:
    """Return the variables of a process of the compiler."""
    # The child finds the poolc that is running, installed or not.
    root = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}
