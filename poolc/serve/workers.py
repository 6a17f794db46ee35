"""Several processes that do the same work: start them, replace one that dies, stop them well.

A worker says when it is ready. One that ends before that ends them all: it would end again. The
first SIGTERM or SIGINT is passed on to the workers as SIGTERM; a second one kills them. Workers
whose parent vanished stop by themselves. Knows nothing about what workers do.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

log = logging.getLogger("poolc.serve")

_context = multiprocessing.get_context("spawn")
_SIGNALS = (signal.SIGTERM, signal.SIGINT)

Work = Callable[..., None]
"""What a worker does: called with its ``Place``, then the arguments of ``supervise``."""


@dataclass(frozen=True, slots=True)
class Place:
    """Which of the workers one is, from 0, and how it says that it is ready."""

    index: int
    _ready: Connection

    def ready(self) -> None:
        """Say that this worker does its work from now on."""
        self._ready.send_bytes(b"ready")


@dataclass(slots=True)
class _Worker:
    index: int
    process: Any  # of the spawn context
    said: Connection
    is_ready: bool = False


def supervise(
    count: int, work: Work, *arguments: Any, on_end: Callable[[int], None] = lambda _: None
) -> int:
    """Run ``count`` processes of ``work`` until a signal; return the exit status for this one.

    0 where all of them ended well after a signal, 1 where one did not, 128 and its number for a
    second signal. ``on_end`` is told the process id of each worker that ended. ``work`` and
    ``arguments`` are pickled.
    """
    return _Supervisor(count, work, arguments, on_end).run()


class _Supervisor:
    def __init__(
        self, count: int, work: Work, arguments: Any, on_end: Callable[[int], None]
    ) -> None:
        self._count, self._work, self._arguments = count, work, arguments
        self._on_end = on_end
        self._workers: list[_Worker] = []
        self._stopping = False
        self._status = 0

    def run(self) -> int:
        with _wakeups() as signals:
            for index in range(self._count):
                self._start(index)
            while self._workers:
                sentinels = [worker.process.sentinel for worker in self._workers]
                said = [worker.said for worker in self._workers if not worker.is_ready]
                found = wait([signals, *said, *sentinels])
                if signals in found:
                    self._signalled(signals.recv(1)[0])
                self._listen(found)
                self._bury()
        return self._status

    def _start(self, index: int) -> None:
        said, ready = _context.Pipe(duplex=False)
        process = _context.Process(
            target=_worker, args=(self._work, Place(index, ready), self._arguments), daemon=False
        )
        process.start()
        ready.close()  # the worker's end: closed with it
        self._workers.append(_Worker(index, process, said))

    def _listen(self, found: list[Any]) -> None:
        for worker in self._workers:
            if worker.said in found and not worker.is_ready:
                try:
                    worker.is_ready = worker.said.recv_bytes() == b"ready"
                except EOFError:  # it ended: its sentinel says so too
                    worker.process.join()

    def _bury(self) -> None:
        """Take out workers that ended; replace those that nobody asked to."""
        for worker in [one for one in self._workers if not one.process.is_alive()]:
            self._workers.remove(worker)
            worker.said.close()
            self._on_end(worker.process.pid)
            code = worker.process.exitcode
            if self._stopping:
                # Whoever was still starting is ended by the signal itself.
                self._status = self._status or int(worker.is_ready and code != 0)
            elif worker.is_ready:
                log.error("worker %d ended (%s): another one is started", worker.index, code)
                self._start(worker.index)
            else:
                log.error("worker %d ended (%s) before it was ready", worker.index, code)
                self._status = 1
                self._stop(signal.SIGTERM)

    def _signalled(self, number: int) -> None:
        if self._stopping:
            self._stop(signal.SIGKILL)
            self._status = 128 + number
        else:
            self._stop(signal.SIGTERM)

    def _stop(self, number: signal.Signals) -> None:
        self._stopping = True
        for worker in self._workers:
            if worker.process.is_alive():
                os.kill(worker.process.pid, number)


@contextmanager
def _wakeups() -> Iterator[socket.socket]:
    """Yield a socket from which the numbers of signals can be read, instead of their effect."""
    receive, send = socket.socketpair()
    send.setblocking(False)
    before = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
    other = signal.set_wakeup_fd(send.fileno())
    try:
        yield receive
    finally:
        signal.set_wakeup_fd(other)
        for number, handler in before.items():
            signal.signal(number, handler)
        receive.close()
        send.close()


def _worker(work: Work, place: Place, arguments: Any) -> None:
    # A terminal's Ctrl-C is for the parent alone: it would be a second signal here.
    os.setpgrp()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    work(place, *arguments)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
