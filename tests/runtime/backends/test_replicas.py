"""Several devices as one: who gets which micro-batch."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import numpy as np
import pytest

from poolc.errors import BackendError
from poolc.runtime.backends.base import Backend
from poolc.runtime.backends.replicas import Replicas


class Device:
    """Notes what it runs; waits while it is held."""

    name, streams, spread = "device", 2, 1

    def __init__(self) -> None:
        self.ran: list[Any] = []
        self.free = threading.Event()
        self.free.set()
        self.entered = threading.Semaphore(0)
        self.closed = False
        self.failure: Exception | None = None

    def run(self, output_set: str, feeds: Any, *, alone: bool = False) -> Any:
        self.ran.append(feeds)
        self.entered.release()
        assert self.free.wait(30)
        if self.failure is not None:
            raise self.failure
        return {"pooled": np.zeros(1)}

    def close(self) -> None:
        self.closed = True


def replicas(*devices: Device) -> Replicas:
    return Replicas([cast("Backend", device) for device in devices])


def test_idle_devices_take_turns() -> None:
    devices = [Device() for _ in range(3)]
    both = replicas(*devices)
    assert (both.streams, both.spread) == (6, 3)
    for i in range(7):
        both.run("main", i)  # type: ignore[arg-type]
    assert [device.ran for device in devices] == [[0, 3, 6], [1, 4], [2, 5]]


def test_a_busy_device_gets_nothing_more() -> None:
    slow, fast = Device(), Device()
    both = replicas(slow, fast)
    slow.free.clear()
    with ThreadPoolExecutor(1) as threads:
        held = threads.submit(both.run, "main", {})
        assert slow.entered.acquire(timeout=30)
        for _ in range(5):
            both.run("main", {})
        assert (len(slow.ran), len(fast.ran)) == (1, 5)
        slow.free.set()
        held.result(30)


def test_a_failure_frees_the_device() -> None:
    device = Device()
    one = replicas(device)
    device.failure = BackendError("lost")
    with pytest.raises(BackendError, match="lost"):
        one.run("main", {})
    device.failure = None
    one.run("main", {})
    one.close()
    assert device.closed
