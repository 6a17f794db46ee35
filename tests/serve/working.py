"""What the processes of the tests of workers do; they are found by name in other processes."""

from __future__ import annotations

import os
import signal
import sys
import threading

from poolc.serve.workers import Place, supervise


def ends(place: Place) -> None:
    """End without ever having been ready."""


def waits(place: Place) -> None:
    """Say who and where one is, and work until SIGTERM, or for ever where that is ignored."""
    if os.environ.get("STUBBORN"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(int(os.environ.get("STATUS", "0"))))
    place.ready()
    sys.stdout.write(f"{place.index} {os.getpid()}\n")
    sys.stdout.flush()
    while True:
        threading.Event().wait(1)


if __name__ == "__main__":
    from tests.serve import working

    sys.exit(supervise(2, getattr(working, sys.argv[1])))
