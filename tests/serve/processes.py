"""Servers in processes of their own, over real sockets and with real signals."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# sys.argv: an artifact, then keyword arguments of Settings and of serve as Python.
SERVE = """
import sys
from poolc.serve.server import serve
from poolc.serve.settings import Settings
serve([sys.argv[1]], Settings(port=0, **eval(sys.argv[2])), **eval(sys.argv[3]))
"""
# The same, but each micro-batch says so and then waits for a line.
GATED = (
    """
import sys
from poolc.runtime.engine import Engine
execute = Engine.execute
def gated(self, *args, **options):
    print("executing", flush=True)
    sys.stdin.readline()
    return execute(self, *args, **options)
Engine.execute = gated
"""
    + SERVE
)
# The same, on a GPU that is lost once the process is told so by SIGUSR1.
LOST = (
    """
import signal
from poolc.errors import ArtifactIncompatible, BackendError
from poolc.runtime.engine import Engine
execute, lost = Engine.execute, []
def losing(self, *args, **options):
    if lost:
        raise BackendError("CUDA failure 719: unspecified launch failure")
    return execute(self, *args, **options)
def restart(self):
    raise ArtifactIncompatible("CUDA failure 719: unspecified launch failure")
Engine.execute, Engine.restart, Engine.devices = losing, restart, ("cuda:0",)
signal.signal(signal.SIGUSR1, lambda *_: lost.append(True))
"""
    + SERVE
)


class ServerProcess:
    """A server that listens; ``url`` is where."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.url = self.wait_for_log(r"running on (\S+),").group(1)

    def wait_for_log(self, pattern: str) -> re.Match[str]:
        """Read the log up to a line that matches."""
        assert self.process.stderr is not None
        said = []
        for line in self.process.stderr:
            said.append(line)
            found = re.search(pattern, line)
            if found:
                return found
        raise AssertionError(f"the log ended without {pattern!r}: {''.join(said)}")

    def wait_for_micro_batch(self) -> None:
        """Wait until a gated server executes."""
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "executing\n"

    def open_gate(self) -> None:
        """Let one micro-batch of a gated server go on."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()


@contextmanager
def server_process(
    artifact: Path, code: str = SERVE, *, settings: str = "{}", options: str = "{}"
) -> Iterator[ServerProcess]:
    """Run a server; at the end it is killed if it still runs."""
    command = [sys.executable, "-c", code, str(artifact), settings, options]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=ROOT, env=os.environ, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as process:
        try:
            yield ServerProcess(process)
        finally:
            process.kill()
            process.communicate()
