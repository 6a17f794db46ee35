"""A plan on the device: the engine that the library makes of it, and the lanes that run it.

Knows its graph of the manifest, and nothing else about artifacts. Not thread-safe but for lanes of
different numbers, which run side by side.
"""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy.typing as npt

from poolc.errors import ArtifactIncompatible
from poolc.model_cache.manifest import GraphInfo
from poolc.runtime.backends.tensorrt_contexts import Contexts
from poolc.runtime.backends.tensorrt_lane import Arrays, Lane, Opened, tensors_of
from poolc.runtime.backends.tensorrt_library import Heard, load_engine, messages
from poolc.runtime.profiles import Placement


class Plan:
    """An engine on the device and the lanes that run it.

    Nothing in it refers back to it, so that it is closed at once where it is dropped: a server
    freezes what it loaded, and a cycle would stay for ever.
    """

    def __init__(
        self,
        trt: ModuleType,
        cudart: ModuleType,
        graph: GraphInfo,
        content: bytes,
        version_compatible: bool,
    ) -> None:
        self._lanes: dict[int, tuple[Lane, Heard]] = {}
        self.graph = graph
        self._messages = messages(trt)
        heard = Heard(self._messages)
        self._runtime, self._engine = load_engine(
            trt, content, version_compatible=version_compatible
        )
        if self._engine is None:
            raise ArtifactIncompatible(
                f"{graph.file} cannot be loaded ({heard.said() or 'it is not said why'}): load the "
                "artifact with --rebuild (rebuild=True), or compile the model again"
            )
        self.num_profiles = int(self._engine.num_optimization_profiles)
        tensors = tensors_of(graph.inputs, graph.outputs)
        contexts = Contexts(trt, self._engine)
        self._opened = Opened(trt, cudart, self._engine, tensors, heard.said, contexts)

    def run(
        self, number: int, arrays: Arrays, where: Placement, rows: int
    ) -> dict[str, npt.NDArray[Any]]:
        """Run a micro-batch on a lane, whose caller alone uses it at the moment."""
        if number not in self._lanes:
            heard = Heard(self._messages)
            self._lanes[number] = Lane(replace(self._opened, said=heard.said)), heard
        lane, heard = self._lanes[number]
        heard.begin()
        return lane.run(arrays, where, rows)

    def lane(self, number: int) -> Lane:
        """Return a lane that has run."""
        return self._lanes[number][0]

    def release(self, number: int) -> bool:
        """Free what a lane makes again; return whether that was anything."""
        return number in self._lanes and self._lanes[number][0].release()

    def close(self) -> None:
        """Free lanes, engine and runtime, in this order; a second time is nothing."""
        for lane, _ in self._lanes.values():
            lane.close()
        self._lanes.clear()
        for name in ("_opened", "_engine", "_runtime"):
            self.__dict__.pop(name, None)

    def __del__(self) -> None:
        self.close()
