"""The parent's side of a system's program: start it, send commands, know its memory.

A system that does not start or answers with an error is ``NotRun`` with the reason: it is recorded
and the others go on.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.environments import ROOT, home, python_of, versions, why_missing
from benchmarks.systems.protocol import Job, Setting
from benchmarks.table import System

# No system may ask a hub, and none may lose time finding that out.
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "INFINITY_ANONYMOUS_USAGE_STATS": "0",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "true",
}
# Infinity, for one, waits for ever where a batch failed.
START_TIMEOUT_S = 400.0
ANSWER_TIMEOUT_S = 1200.0
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class NotRun(Exception):
    """A system could not be measured; the message is what the table says, without our paths."""

    def __init__(self, reason: str) -> None:
        for folder in (home(), ROOT, Path.home()):
            reason = reason.replace(str(folder), folder.name)
        super().__init__(reason)


class Process:
    """A system's program, loaded and waiting; ``seconds`` is from its start to the first answer."""

    def __init__(self, system: System, job: Job, cores: Sequence[int] | None = None) -> None:
        self.system = system
        self.setting: Setting = {}
        self.tried: list[dict[str, Any]] = []
        self._log = _file(job, system, "log").open("w", encoding="utf-8")
        start = time.perf_counter()
        self._process = subprocess.Popen(
            [*_command(system, job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=_environment(cores),
            preexec_fn=None if cores is None else lambda: os.sched_setaffinity(0, cores),
            cwd=ROOT,
        )
        try:
            ready = self._answer(START_TIMEOUT_S)
        except NotRun:
            self.close()
            raise
        self.seconds = time.perf_counter() - start
        self.settings: list[Setting] = ready["settings"]
        self.setting = self.settings[0]

    def ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        if self._process.stdin is None or self._process.poll() is not None:
            raise NotRun(f"stopped: {self._last_words()}")
        self.signal(signal.SIGCONT)
        self._process.stdin.write(json.dumps({"op": op, **arguments}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def signal(self, number: signal.Signals) -> None:
        """Signal the process and its children; one that is stopped goes on when it is asked.

        Threads that wait by spinning or polling would otherwise take time from the others' rounds.
        """
        with suppress(FileNotFoundError, ProcessLookupError):
            for pid in _family(self._process.pid):
                os.kill(pid, number)

    def tune(self, items: Path) -> None:
        """Let the system choose among its settings on these items."""
        answer = self.ask("tune", items=str(items))
        self.setting, self.tried = answer["setting"], answer["tried"]

    def memory_bytes(self) -> int:
        """Return the resident memory of the process and its children."""
        return proportional_bytes(self._process.pid)

    def close(self) -> None:
        """End the process."""
        self.signal(signal.SIGCONT)
        try:
            self._process.communicate(timeout=20)
        except (subprocess.TimeoutExpired, ValueError, BrokenPipeError):
            self._process.kill()
            self._process.wait()
        self._log.close()

    def _answer(self, timeout_s: float = ANSWER_TIMEOUT_S) -> dict[str, Any]:
        stream = self._process.stdout
        if stream is None:
            raise NotRun("no standard output")
        # One line is asked for at a time, so none waits in a buffer that select does not see.
        if not select.select([stream], [], [], timeout_s)[0]:
            self.signal(signal.SIGKILL)
            raise NotRun(f"no answer within {timeout_s:.0f} s: {self._last_words()}")
        line = stream.readline()
        if not line:
            self._process.wait()
            raise NotRun(self._last_words())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise NotRun(answer["error"].splitlines()[0][:300])
        return answer

    def _last_words(self) -> str:
        self._log.flush()
        return last_words(Path(self._log.name), self._process.returncode)


def prepare(system: System, job: Job, python: str | None = None) -> float:
    """Let a system export what it needs, in a process of its own; return the seconds.

    What was exported with these very versions is not exported again.
    """
    done_file, stamp = _file(job, system, "prepared.json"), state(system)
    if done_file.exists():
        done = json.loads(done_file.read_text(encoding="utf-8"))
        if done["state"] == stamp:
            return float(done["seconds"])
    start = time.perf_counter()
    log = _file(job, system, "prepare.log")
    with log.open("w", encoding="utf-8") as stream:
        command = _command(system, job, "--prepare", python=python)
        code = subprocess.run(command, stderr=stream, env=_environment(None), cwd=ROOT).returncode
    if code:
        raise NotRun(f"not exported: {last_words(log, code)}")
    seconds = time.perf_counter() - start
    done_file.write_text(json.dumps({"seconds": seconds, "state": stamp}), encoding="utf-8")
    return seconds


def state(system: System) -> str:
    """Return a hash of what a system is made of: its packages, or the sources of poolc."""
    if system.module == "poolc":
        sources = sorted((ROOT / "poolc").rglob("*.py"))
        content = b"\0".join(file.read_bytes() for file in sources)
    else:
        content = json.dumps(versions(system.environment)).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def last_words(log: Path, code: int | None) -> str:
    """Return the last line of a log, which is where Python says why it stopped."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return (lines[-1] if lines else f"exit code {code}")[:300]


def _command(system: System, job: Job, *flags: str, python: str | None = None) -> list[str]:
    interpreter = python or python_of(system.environment)
    if interpreter is None:
        raise NotRun(why_missing(system.environment))
    file = _file(job, system, "job.json")
    file.write_text(json.dumps(asdict(job)), encoding="utf-8")
    return [interpreter, "-m", f"benchmarks.systems.{system.module}", *flags, str(file)]


def _file(job: Job, system: System, suffix: str) -> Path:
    folder = Path(job.folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{system.name}.{suffix}"


def _environment(cores: Sequence[int] | None) -> dict[str, str]:
    own = {**os.environ, **OFFLINE, "PYTHONPATH": str(ROOT), "HF_HOME": str(home() / "hub")}
    return own if cores is None else {**own, **dict.fromkeys(_THREADS, str(len(cores)))}


def proportional_bytes(pid: int) -> int:
    """Return the proportional set size of a process and its children."""
    return sum(_resident(i) for i in _family(pid))


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(i for child in children for i in _family(int(child)))]


def _resident(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0
