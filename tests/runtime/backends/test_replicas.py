"""Several devices as one: who gets which micro-batch."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import numpy as np
import pytest

from poolc.errors import BackendError, DeviceOutOfMemory
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
    names = [f"cuda:{number}" for number in range(len(devices))]
    return Replicas([cast("Backend", device) for device in devices], names)


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


def test_what_fails_on_one_device_runs_on_another() -> None:
    """And a lost one, which has least to do since it fails at once, gets nothing any more."""
    lost, sound = Device(), Device()
    lost.failure = BackendError("cudaErrorLaunchFailure")
    both = replicas(lost, sound)
    for number in range(20):
        assert both.run("main", number)  # type: ignore[arg-type]
    assert sound.ran == list(range(20))
    assert len(lost.ran) == 3


def test_a_device_that_is_full_is_not_lost() -> None:
    full, sound = Device(), Device()
    full.failure = DeviceOutOfMemory("one text does not fit")
    both = replicas(full, sound)
    for _ in range(20):
        both.run("main", {})
    assert len(full.ran) == 20
    assert not both.lost


def test_a_failure_now_and_then_loses_no_device() -> None:
    first, second = Device(), Device()
    both = replicas(first, second)
    for _ in range(5):
        first.failure = BackendError("now and then")
        both.run("main", {})
        first.failure = None
        for _ in range(4):
            both.run("main", {})
    assert len(first.ran) > 10


def test_what_fails_everywhere_fails_and_loses_nothing() -> None:
    devices = [Device(), Device()]
    both = replicas(*devices)
    for device in devices:
        device.failure = BackendError("one text does not fit")
    for _ in range(10):
        with pytest.raises(BackendError, match="does not fit"):
            both.run("main", {})
    for device in devices:
        device.failure = None
        device.ran.clear()
    for number in range(4):
        both.run("main", number)  # type: ignore[arg-type]
    assert [device.ran for device in devices] == [[0, 2], [1, 3]]


def test_devices_are_closed_though_one_is_lost() -> None:
    class Lost(Device):
        def close(self) -> None:
            raise BackendError("cudaErrorLaunchFailure")

    sound = Device()
    with pytest.raises(BackendError, match="LaunchFailure"):
        replicas(Lost(), sound).close()
    assert sound.closed
