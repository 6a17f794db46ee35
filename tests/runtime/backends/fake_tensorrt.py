"""TensorRT as it is on a machine with a GPU: engines are ONNX graphs that run on the CPU.

A plan is the graph with its weights and the profiles, as JSON. What it has are names of the real
library, which ``test_tensorrt_names.py`` checks; like that, it refuses shapes outside a profile,
contexts that lack an address, scratch memory that is too small, and code of a plan that was not
allowed; its runtimes have one logger, and scratch memory is what the largest shapes need unless
the engine was built to resize it.
"""

from __future__ import annotations

import base64
import ctypes
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime

from tests.runtime.backends.fake_cudart import FakeCudart

_SCRATCH_PER_TOKEN = 64  # bytes
_VERSION_COMPATIBLE = 12
_RESIZE = 1
_TYPES: dict[str, Any] = {"tensor(int32)": np.int32, "tensor(float)": np.float32}


class ILogger:
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    def log(self, severity: int, msg: str) -> None:
        raise NotImplementedError


class IHostMemory(bytes):
    """Bytes that the library owns."""


class IOptimizationProfile:
    def __init__(self) -> None:
        self.shapes: dict[str, Any] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        self.shapes[input] = [list(min), list(opt), list(max)]


class ITimingCache:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> IHostMemory:
        return IHostMemory(self.content + b".")


class IBuilderConfig:
    def __init__(self) -> None:
        self.profiles: list[IOptimizationProfile] = []
        self.cache = ITimingCache(b"")
        self.set: list[Any] = []
        self.previews: list[int] = []
        self.builder_optimization_level = 3
        self.hardware_compatibility_level = 0

    def clear_flag(self, flag: int) -> None:
        self.set.append(("clear", flag))

    def set_flag(self, flag: int) -> None:
        self.set.append(("set", flag))

    def set_preview_feature(self, feature: int, enable: bool) -> None:
        self.previews += [feature] if enable else []

    def set_memory_pool_limit(self, pool: int, pool_size: int) -> None:
        self.set.append((pool, pool_size))

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        return ITimingCache(bytes(serialized_timing_cache))

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        self.cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache:
        return self.cache


class LayerType:
    ATTENTION_INPUT = 51


class INetworkDefinition:
    def __init__(self) -> None:
        self.model: Any = None

    @property
    def num_inputs(self) -> int:
        return len(self.model.graph.input)

    def get_input(self, index: int) -> Any:
        return SimpleNamespace(name=self.model.graph.input[index].name)

    @property
    def num_layers(self) -> int:
        return len(self.model.graph.node)

    def get_layer(self, index: int) -> Any:
        is_attention = self.model.graph.node[index].op_type == "Attention"
        return SimpleNamespace(type=LayerType.ATTENTION_INPUT if is_attention else None)


class OnnxParser:
    num_errors = 0

    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network = network

    def parse_from_file(self, model: str) -> bool:
        self._network.model = onnx.load(model)
        return True

    def parse(self, model: bytes, path: str | None = None) -> bool:
        """Weights are read beside ``path``; TensorRT's own attribute of Attention is known."""
        loaded = onnx.load_from_string(model)
        for node in loaded.graph.node:
            kept = [one for one in node.attribute if one.name != "TRT_decomposable"]
            del node.attribute[:]
            node.attribute.extend(kept)
        if path is not None:
            onnx.load_external_data_for_model(loaded, str(Path(path).parent))
        self._network.model = loaded
        return True

    def get_error(self, index: int) -> Any:
        raise IndexError(index)


class Builder:
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        return INetworkDefinition()

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(
        self, network: INetworkDefinition, config: IBuilderConfig
    ) -> IHostMemory:
        plain = {
            "graph": base64.b64encode(network.model.SerializeToString()).decode(),
            "profiles": [profile.shapes for profile in config.profiles],
            "has_code": ("set", _VERSION_COMPATIBLE) in config.set,
            "resizes": config.previews == [_RESIZE],
        }
        return IHostMemory(json.dumps(plain).encode())


class IExecutionContext:
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine
        self._profile: int | None = None
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._scratch = (0, 0)

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        self._profile = profile_index
        return 0 <= profile_index < self._engine.num_optimization_profiles

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert self._profile is not None
        least, _, most = self._engine.profiles[self._profile][name]
        self._shapes[name] = tuple(shape)
        inside = all(a <= n <= b for a, n, b in zip(least, shape, most, strict=True))
        return inside or self._engine.fail(f"{name} of {shape} is outside profile {self._profile}")

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return True

    def infer_shapes(self) -> list[str]:
        return [name for name in self._engine.inputs if name not in self._shapes]

    def update_device_memory_size_for_shapes(self) -> int:
        assert self._profile is not None
        if not self._engine.resizes:
            return self._engine.get_device_memory_size_for_profile_v2(self._profile)
        rows, seq = self._shapes[self._engine.inputs[0]]
        return rows * seq * _SCRATCH_PER_TOKEN

    def set_device_memory(self, memory: int, size: int) -> None:
        self._scratch = (memory, size)

    def execute_async_v3(self, stream_handle: int) -> bool:
        engine, shapes, addresses = self._engine, dict(self._shapes), dict(self._addresses)
        memory, size = self._scratch
        if size < self.update_device_memory_size_for_shapes():
            return engine.fail("the scratch memory is too small")
        if engine.module.broken:
            return engine.fail(engine.module.broken)
        engine.module.ran.append((self._profile, shapes[engine.inputs[0]]))
        engine.module.cudart.compute(
            stream_handle, lambda: engine.compute(shapes, addresses, (memory, size))
        )
        return True


class ICudaEngine:
    def __init__(self, module: Any, logger: ILogger, plain: Any) -> None:
        self.module, self._logger = module, logger
        self.profiles, self.resizes = plain["profiles"], plain["resizes"]
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        self._session = onnxruntime.InferenceSession(
            base64.b64decode(plain["graph"]), options, providers=["CPUExecutionProvider"]
        )
        self.inputs = [value.name for value in self._session.get_inputs()]
        self._types = [_TYPES[value.type] for value in self._session.get_inputs()]

    @property
    def num_optimization_profiles(self) -> int:
        return len(self.profiles)

    def get_device_memory_size_for_profile_v2(self, profile_index: int) -> int:
        rows, seq = self.profiles[profile_index][self.inputs[0]][2]
        return int(rows * seq * _SCRATCH_PER_TOKEN)

    def create_execution_context(self, strategy: Any) -> IExecutionContext:
        assert strategy == self.module.ExecutionContextAllocationStrategy.USER_MANAGED
        self.module.contexts += 1
        return IExecutionContext(self)

    def fail(self, message: str) -> bool:
        self._logger.log(ILogger.ERROR, message)
        return False

    def compute(self, shapes: Any, addresses: Any, scratch: tuple[int, int]) -> None:
        """Read the inputs from the device's memory, compute, and write the outputs there."""
        cudart = self.module.cudart
        cudart.block(*scratch)
        feeds = {}
        for name, dtype in zip(self.inputs, self._types, strict=True):
            size = int(np.prod(shapes[name])) * 4
            raw = ctypes.string_at(cudart.block(addresses[name], size), size)
            feeds[name] = np.frombuffer(raw, dtype).reshape(shapes[name])
        names = [value.name for value in self._session.get_outputs()]
        for name, array in zip(names, self._session.run(names, feeds), strict=True):
            content = np.ascontiguousarray(array).tobytes()
            ctypes.memmove(cudart.block(addresses[name], len(content)), content, len(content))


class Runtime:
    engine_host_code_allowed = False

    def __init__(self, module: FakeTensorRT, logger: ILogger) -> None:
        self._module = module
        # The library has one logger, the first.
        self._logger = module.logger = module.logger or logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
        try:
            plain = json.loads(bytes(serialized_engine))
        except ValueError:
            self._logger.log(ILogger.ERROR, "the magic number is another")
            return None
        if plain["has_code"] and not self.engine_host_code_allowed:
            self._logger.log(ILogger.ERROR, "code of the host is not allowed")
            return None
        return self._module._engine(self._logger, plain)


class FakeTensorRT:
    """Stands for the module ``tensorrt``. ``broken`` is what every run fails with."""

    __name__ = "tensorrt"
    ILogger = ILogger
    Builder = Builder
    OnnxParser = OnnxParser
    BuilderFlag = SimpleNamespace(TF32=6, VERSION_COMPATIBLE=_VERSION_COMPATIBLE)
    LayerType = LayerType
    PreviewFeature = SimpleNamespace(RUNTIME_ACTIVATION_RESIZE_10_10=_RESIZE)
    MemoryPoolType = SimpleNamespace(WORKSPACE=0)
    HardwareCompatibilityLevel = SimpleNamespace(NONE=0, AMPERE_PLUS=1, SAME_COMPUTE_CAPABILITY=2)
    ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED=2)

    def __init__(self, cudart: FakeCudart, version: str = "11.4.0.106") -> None:
        self.__version__ = version
        self.cudart = cudart
        self.broken: str | None = None
        self.logger: Any = None
        self.ran: list[tuple[int | None, tuple[int, ...]]] = []
        self.contexts = 0

    def Runtime(self, logger: Any) -> Any:
        return Runtime(self, logger)

    def _engine(self, logger: Any, plain: Any) -> Any:
        """Return an engine of the library's own class."""
        return ICudaEngine(self, logger, plain)
