"""Engines of TensorRT and TensorRT-RTX on one NVIDIA GPU.

An engine an output set, run from two threads on a stream each, so that one computes while the other
copies. A micro-batch runs in the profile that holds it with least padding; small ones replay
recorded kernels (``tensorrt_lane.py``). An engine that was built for another machine is refused
with the reason: what it would do here is not defined.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from poolc.errors import ArtifactIncompatible, BackendError, DeviceOutOfMemory
from poolc.model_cache.artifact import Artifact
from poolc.model_cache.host import EngineHost, engine_problem
from poolc.model_cache.manifest import EngineRequires, GraphInfo
from poolc.runtime.backends.base import Feeds, Fetches
from poolc.runtime.backends.cuda import device_id, filled_up
from poolc.runtime.backends.cuda_device import (
    OutOfMemoryError,
    call,
    find_device,
    import_cudart,
)
from poolc.runtime.backends.tensorrt_lane import Arrays
from poolc.runtime.backends.tensorrt_library import import_tensorrt
from poolc.runtime.backends.tensorrt_plan import Plan
from poolc.runtime.backends.turns import turns
from poolc.runtime.profiles import Placement, pieces, place
from poolc.spec import INPUT_IDS, MAIN_SET, Target, route_spec, set_route

# Micro-batches side by side: one computes while another is copied.
_STREAMS = 2


def engine_host(target: Target, device: str | None = None) -> EngineHost:
    """Return what an engine of a target finds on this machine.

    Raises MissingDependency without the library, cuda-bindings or a GPU, and InvalidOption for a
    device that is not there.
    """
    version = str(import_tensorrt(target).__version__)
    return find_device(device_id(device)).host(version)


def engine_requires(artifact: Artifact) -> EngineRequires:
    """Return what an artifact's engines need. Raises ArtifactIncompatible where it does not say."""
    requires = artifact.manifest.requires.engine
    if requires is None:
        raise ArtifactIncompatible(
            f"the artifact is for {artifact.manifest.target} and does not say what its engines "
            "need: compile the model again"
        )
    return requires


class TensorRTBackend:
    """Runs an artifact's engines on one device."""

    streams = _STREAMS
    spread = 1  # a small backlog is one micro-batch: a GPU runs it whole
    pool_cpu_s = 0.0  # the library computes on the device

    def __init__(self, artifact: Artifact, device: str | None = None) -> None:
        manifest = artifact.manifest
        self.name = str(manifest.target)
        self.artifact = artifact
        self._requires = engine_requires(artifact)
        problem = engine_problem(self._requires, engine_host(manifest.target, device))
        if problem is not None:
            raise ArtifactIncompatible(
                f"the artifact's engine does not run here: {problem}; load it with --rebuild "
                "(rebuild=True), which builds it here from the ONNX in it, or compile the model "
                "again"
            )
        self._trt, self._cudart = import_tensorrt(manifest.target), import_cudart()
        self._device = device_id(device)
        self._plans: dict[str, Plan] = {}
        self._lock = threading.Lock()
        self._closing = threading.Lock()
        self._closed = False
        # The lane that was free last has recorded most: it is taken first.
        self._free: queue.LifoQueue[int] = queue.LifoQueue()
        for lane in reversed(range(_STREAMS)):
            self._free.put(lane)
        self.executor = ThreadPoolExecutor(_STREAMS, thread_name_prefix="poolc-tensorrt")
        self._plan(MAIN_SET)

    def run(self, output_set: str, feeds: Feeds, *, alone: bool = False) -> Fetches:
        """Run one micro-batch; see ``Backend.run``. One that does not fit into memory is halved."""
        plan = self._plan(output_set)
        rows, seq = feeds[INPUT_IDS].shape
        try:
            parts = list(pieces(self.artifact.manifest.profiles, rows, seq))
        except ValueError as error:
            raise BackendError(f"the engine was not built for it: {error}") from error
        if len(parts) == 1:
            try:
                return self._run(plan, output_set, feeds)
            except OutOfMemoryError as error:
                if rows == 1:
                    raise DeviceOutOfMemory(f"one text does not fit: {error}") from error
            parts = [slice(0, rows // 2), slice(rows // 2, rows)]
        found = [
            self.run(output_set, {name: array[part] for name, array in feeds.items()})
            for part in parts
        ]
        return {name: np.concatenate([one[name] for one in found]) for name in found[0]}

    def close(self) -> None:
        """Free the engines once what runs has ended, on a lost device as well as that can be done.

        From any thread, and more than once; the threads end with this object.
        """
        with self._closing:  # two of them would wait for each other's lanes
            with self._lock:
                self._closed = True
            held: list[int] = []
            try:
                while len(held) < _STREAMS:
                    held.append(self._free.get())
                with turns.opening():
                    self._cudart.cudaSetDevice(self._device)
                    while self._plans:
                        self._plans.popitem()[1].close()
            finally:
                for lane in held:
                    self._free.put(lane)

    def _run(self, plan: Plan, output_set: str, feeds: Feeds) -> Fetches:
        rows, seq = feeds[INPUT_IDS].shape
        where = place(self.artifact.manifest.profiles, rows, seq)
        pad = route_spec(self.artifact.manifest.spec, set_route(output_set)).pad_token_id
        filled = filled_up(feeds, (where.rows, where.seq), pad, packed=False)
        with self._lane() as number:
            if self._closed:
                raise _closed()
            with turns.shared():
                call(self._cudart, "cudaSetDevice", self._device)  # by thread
                fetched = self._fetched(plan, number, filled, where, rows)
            lane = plan.lane(number)
            if lane.has_to_record:
                with turns.alone_unless_opening() as may:
                    if may:
                        lane.record()
        sized = {"batch": rows, "seq": seq}
        return {
            info.name: fetched[info.name][tuple(slice(sized.get(size)) for size in info.shape)]
            for info in plan.graph.outputs
        }

    def _fetched(
        self, plan: Plan, number: int, filled: Arrays, where: Placement, rows: int
    ) -> dict[str, npt.NDArray[Any]]:
        try:
            return plan.run(number, filled, where, rows)
        except OutOfMemoryError:
            if not self._release(number):
                raise
        return plan.run(number, filled, where, rows)

    def _release(self, number: int) -> bool:
        """Free what a lane holds besides its engines, and what lanes hold that nobody runs.

        Return whether that was anything: then there is room that was not there before.
        """
        idle: list[int] = []
        with suppress(queue.Empty):
            while True:
                idle.append(self._free.get_nowait())
        try:
            plans = list(self._plans.values())
            freed = [plan.release(lane) for plan in plans for lane in (number, *idle)]
            return any(freed)
        finally:
            for lane in reversed(idle):
                self._free.put(lane)

    @contextmanager
    def _lane(self) -> Iterator[int]:
        lane = self._free.get()
        try:
            yield lane
        finally:
            self._free.put(lane)

    def _plan(self, output_set: str) -> Plan:
        with self._lock:
            if self._closed:
                raise _closed()
            graph = self.artifact.manifest.graphs[output_set]
            if graph.file not in self._plans:  # two sets may have one engine
                with turns.opening():
                    self._plans[graph.file] = self._open(graph)
            return self._plans[graph.file]

    def _open(self, graph: GraphInfo) -> Plan:
        call(self._cudart, "cudaSetDevice", self._device)
        content = self.artifact.file(graph.file).read_bytes()
        plan = Plan(self._trt, self._cudart, graph, content, self._requires.version_compatible)
        wanted = len(self.artifact.manifest.profiles)
        if plan.num_profiles != wanted:
            raise ArtifactIncompatible(
                f"{graph.file} has {plan.num_profiles} profiles and the manifest {wanted}: compile "
                "the model again"
            )
        return plan


def _closed() -> BackendError:
    return BackendError("the model was closed: load it again")
