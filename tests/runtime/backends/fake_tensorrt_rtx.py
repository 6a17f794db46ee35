"""TensorRT-RTX as it is on a machine with a GPU: ``fake_tensorrt.py``, and what only it has."""

from __future__ import annotations

from enum import Enum
from types import SimpleNamespace
from typing import Any

from tests.runtime.backends import fake_tensorrt
from tests.runtime.backends.fake_cudart import FakeCudart
from tests.runtime.backends.fake_tensorrt import FakeTensorRT


class IRuntimeCache:
    pass


class IRuntimeConfig:
    """``record`` is what a context was made with: allocation, specialization, cache."""

    def __init__(self) -> None:
        self.dynamic_shapes_kernel_specialization_strategy = "lazy"
        self._allocation = 0
        self._cache: IRuntimeCache | None = None

    def set_execution_context_allocation_strategy(self, strategy: int) -> None:
        self._allocation = strategy

    def create_runtime_cache(self) -> IRuntimeCache:
        return IRuntimeCache()

    def set_runtime_cache(self, cache: IRuntimeCache) -> bool:
        self._cache = cache
        return True

    def record(self) -> tuple[int, str, IRuntimeCache | None]:
        strategy = self.dynamic_shapes_kernel_specialization_strategy
        return self._allocation, strategy, self._cache


class IExecutionContext(fake_tensorrt.IExecutionContext):
    def is_stream_capturable(self, stream: int) -> bool:
        return bool(self._engine.module.capturable)


class ICudaEngine(fake_tensorrt.ICudaEngine):
    def create_runtime_config(self) -> IRuntimeConfig:
        return IRuntimeConfig()

    def create_execution_context(self, runtime_config: Any) -> IExecutionContext:
        self.module.made.append(runtime_config.record())
        return IExecutionContext(self)


class ComputeCapability(Enum):
    SM89 = 89
    SM120 = 120


class IBuilderConfig(fake_tensorrt.IBuilderConfig):
    num_compute_capabilities = 0

    def set_compute_capability(self, compute_capability: ComputeCapability, index: int) -> None:
        assert index < self.num_compute_capabilities


class Builder(fake_tensorrt.Builder):
    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()


class FakeTensorRTRtx(FakeTensorRT):
    """Stands for the module ``tensorrt_rtx``. ``made`` is what contexts were made with."""

    __name__ = "tensorrt_rtx"
    Builder = Builder
    BuilderFlag = SimpleNamespace(TF32=6, VERSION_COMPATIBLE=12, REQUIRE_USER_ALLOCATION=21)
    ComputeCapability = ComputeCapability
    DynamicShapesKernelSpecializationStrategy = SimpleNamespace(LAZY="lazy", EAGER="eager")

    def __init__(self, cudart: FakeCudart, version: str = "1.7.1.116") -> None:
        super().__init__(cudart, version)
        self.capturable = True
        self.made: list[Any] = []

    def _engine(self, logger: Any, plain: Any) -> Any:
        return ICudaEngine(self, logger, plain)
