"""ONNX Runtime as it is on a machine with a GPU, but for the GPU: graphs run in NumPy.

What it has are names of the real library, which ``test_cuda.py`` checks; what is not faked is the
real library's.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx

from poolc.runtime.backends.cuda_library import PROVIDER
from tests.compiler.vendor_ops import evaluator


class OrtValue:
    """A buffer on the device."""

    def __init__(self, array: Any) -> None:
        self.array = array

    @classmethod
    def ortvalue_from_numpy(cls, array: Any, device_type: str, device_id: int) -> OrtValue:
        assert (device_type, device_id) == ("cuda", 0)
        return cls(array.copy())

    @classmethod
    def ortvalue_from_shape_and_type(
        cls, shape: Any, element_type: Any, device_type: str, device_id: int
    ) -> OrtValue:
        return cls(np.full(shape, np.nan, element_type))

    def update_inplace(self, array: Any) -> None:
        assert array.shape == self.array.shape and array.dtype == self.array.dtype
        self.array[...] = array

    def numpy(self) -> Any:
        return self.array.copy()


class IOBinding:
    def __init__(self) -> None:
        self.inputs: dict[str, OrtValue] = {}
        self.outputs: dict[str, OrtValue] = {}

    def bind_ortvalue_input(self, name: str, value: OrtValue) -> None:
        self.inputs[name] = value

    def bind_ortvalue_output(self, name: str, value: OrtValue) -> None:
        self.outputs[name] = value


class InferenceSession:
    """Computes with the library of operators in NumPy."""

    def __init__(self, fake: FakeCuda, path: str, providers: Any) -> None:
        ((name, self.settings),) = providers
        self._fake, self.provider = fake, name
        self._graph = onnx.load(path)
        self._evaluator = evaluator(self._graph)
        fake.sessions.append(self)
        self.recorded: list[str] = []

    def get_providers(self) -> list[str]:
        return [self.provider if self._fake.works else "CPUExecutionProvider"]

    def get_outputs(self) -> list[Any]:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        real = onnxruntime.InferenceSession(_interface(self._graph), options)
        return list(real.get_outputs())

    def io_binding(self) -> IOBinding:
        return IOBinding()

    def run(self, names: Any, feeds: Any, run_options: Any = None) -> list[Any]:
        self._fake.ran.append(("run", {name: array.shape for name, array in feeds.items()}))
        rows = feeds["input_ids"].shape[0]
        if self._fake.most_rows is not None and rows > self._fake.most_rows:
            raise RuntimeError(self._fake.full)
        return list(self._evaluator.run(list(names), dict(feeds)))

    def run_with_iobinding(self, binding: IOBinding, run_options: Any) -> None:
        number = run_options.get_run_config_entry("gpu_graph_id")
        if number == self._fake.no_room_for:
            raise RuntimeError(self._fake.full)
        self._fake.ran.append(("replay", number))
        self.recorded.append(number)
        feeds = {name: value.array for name, value in binding.inputs.items()}
        names = list(binding.outputs)
        for name, array in zip(names, self._evaluator.run(names, feeds), strict=True):
            binding.outputs[name].array[...] = array


class FakeCuda:
    """Stands for the module ``onnxruntime``; ``works`` says whether CUDA starts."""

    def __init__(self, real: ModuleType) -> None:
        self._real = real
        self.works = True
        self.__file__ = real.__file__
        self.fails: str | None = None  # what is said of a session
        self.no_room_for: str | None = None  # the number of a recording
        self.no_recording: str | None = None  # what is said of a session that records
        self.prints = ""  # while CUDA is loaded
        self.most_rows: int | None = None
        self.full = "CUDA failure 2: out of memory"  # what is said of more rows than those
        self.ran: list[tuple[str, Any]] = []
        self.sessions: list[InferenceSession] = []
        self.OrtValue = OrtValue

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def get_available_providers(self) -> list[str]:
        return [PROVIDER, "CPUExecutionProvider"]

    def preload_dlls(self) -> None:
        if self.prints:
            sys.stdout.write(self.prints)

    def InferenceSession(
        self, path: str, options: Any, providers: Any, enable_fallback: int = 1
    ) -> InferenceSession:
        assert Path(path).exists()
        assert not enable_fallback, "what fails would be computed by the CPU"
        if self.fails is not None:
            raise RuntimeError(self.fails)
        ((_, settings),) = providers
        if self.no_recording is not None and settings["enable_cuda_graph"] == "1":
            raise RuntimeError(self.no_recording)
        return InferenceSession(self, path, providers)


def broken_provider(folder: Path) -> tuple[str, Path]:
    """Make an ONNX Runtime whose CUDA provider is no library; return its ``__file__``, and that."""
    import onnxruntime

    library = folder / "capi/libonnxruntime_providers_cuda.so"
    shared = library.with_name("libonnxruntime_providers_shared.so")
    library.parent.mkdir()
    library.write_bytes(b"no library")
    shutil.copy(Path(onnxruntime.__file__).parent / "capi" / shared.name, shared)
    return str(folder / "__init__.py"), library


def _interface(model: onnx.ModelProto) -> bytes:
    """Return a graph of the same outputs that any provider has the operators of."""
    outputs = [
        onnx.helper.make_tensor_value_info(
            value.name,
            onnx.TensorProto.FLOAT,
            [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim],
        )
        for value in model.graph.output
    ]
    nodes, inputs = [], []
    for value in outputs:
        given = onnx.ValueInfoProto()
        given.CopyFrom(value)
        given.name = f"{value.name}_in"
        inputs.append(given)
        nodes.append(onnx.helper.make_node("Identity", [given.name], [value.name]))
    graph = onnx.helper.make_graph(nodes, "interface", inputs, outputs)
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)])
    made.ir_version = 10
    content: bytes = made.SerializeToString()
    return content
