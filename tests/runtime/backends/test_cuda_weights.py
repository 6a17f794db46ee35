"""Weights that sessions borrow: by the real ONNX Runtime, with the host's memory for a device's."""

from __future__ import annotations

import ctypes
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from poolc.errors import ArtifactCorrupt, BackendError, DeviceOutOfMemory
from poolc.runtime.backends import cuda_weights, linked_cudart
from poolc.runtime.backends.cuda_device import OutOfMemoryError, call
from poolc.runtime.backends.cuda_weights import DeviceWeights, device_weights
from poolc.runtime.backends.dlpack import CPU, borrowed
from tests.runtime.backends.fake_cudart import FakeCudart

SIZE = 3000  # numbers of each weight
TYPES = [
    (TensorProto.FLOAT, np.float32),
    (TensorProto.FLOAT16, np.float16),
    (TensorProto.BFLOAT16, ml_dtypes.bfloat16),
]


def save(folder: Path, name: str, weights: list[int], data_type: int = TensorProto.FLOAT) -> None:
    """Save the sum of an input and of those of the weights that are at these places of the file."""
    width = 4 if data_type == TensorProto.FLOAT else 2
    nodes, value, tensors = [], "x", []
    for number, place in enumerate(weights):
        tensor = TensorProto(name=f"w{number}", data_type=data_type, dims=[SIZE])
        tensor.data_location = TensorProto.EXTERNAL
        where = {"location": "weights", "offset": place * SIZE * width, "length": SIZE * width}
        for key, said in where.items():
            tensor.external_data.add(key=key, value=str(said))
        tensors.append(tensor)
        nodes.append(helper.make_node("Cast", [tensor.name], [f"c{number}"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Add", [value, f"c{number}"], [f"s{number}"]))
        value = f"s{number}"
    make = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [make("x", TensorProto.FLOAT, [1])],
        [make(value, TensorProto.FLOAT, [SIZE])], tensors,
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    (folder / name).write_bytes(made.SerializeToString())


def options_of_a_session() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def answer(session: Any) -> Any:
    return session.run(None, {"x": np.zeros(1, np.float32)})[0]


@pytest.mark.parametrize(("data_type", "dtype"), TYPES)
def test_a_session_computes_with_what_it_borrowed(
    data_type: int, dtype: Any, tmp_path: Path
) -> None:
    np.ones(SIZE, dtype).tofile(tmp_path / "weights")
    save(tmp_path, "g.onnx", [0], data_type)
    memory = np.arange(SIZE).astype(dtype)
    options = options_of_a_session()
    value = borrowed(onnxruntime, memory.ctypes.data, [SIZE], data_type, (CPU, 0))
    options.add_initializer("w0", value)
    session = onnxruntime.InferenceSession(str(tmp_path / "g.onnx"), options)
    np.testing.assert_array_equal(answer(session), memory.astype(np.float32))
    memory[:] = 7
    assert set(answer(session)) == {7}
    del value, options
    assert set(answer(session)) == {7}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two graphs over three weights; sessions run on the CPU."""
    monkeypatch.setattr(cuda_weights, "CUDA", CPU)
    np.arange(3 * SIZE, dtype=np.float32).tofile(tmp_path / "weights")
    save(tmp_path, "a.onnx", [0, 1])
    save(tmp_path, "b.onnx", [1, 2, 2])
    return tmp_path


@pytest.fixture
def cudart(monkeypatch: pytest.MonkeyPatch) -> FakeCudart:
    fake = FakeCudart()
    monkeypatch.setattr(cuda_weights, "linked_cudart", lambda ort: fake)
    return fake


def weights_of(folder: Path, device: int = 0) -> DeviceWeights | None:
    artifact: Any = SimpleNamespace(file=lambda name: folder / name)
    return device_weights(onnxruntime, artifact, device)


def opened(folder: Path, weights: DeviceWeights, file: str) -> Any:
    options = options_of_a_session()
    weights.share(file, options)
    return onnxruntime.InferenceSession(str(folder / file), options)


def test_each_weight_is_copied_once(folder: Path, cudart: FakeCudart) -> None:
    cudart.devices = 2
    weights = weights_of(folder, 1)
    assert weights is not None
    first = [opened(folder, weights, "a.onnx") for _ in range(2)]
    padded = -(-SIZE * 4 // 256) * 256
    assert cudart.held == 2 * padded
    second = opened(folder, weights, "b.onnx")
    assert cudart.held == 3 * padded
    assert set(cudart.selected) == {1}

    rows = np.arange(3 * SIZE, dtype=np.float32).reshape(3, SIZE)
    (folder / "weights").write_bytes(b"")  # nobody reads it again
    for session in first:
        np.testing.assert_array_equal(answer(session), rows[0] + rows[1])
    np.testing.assert_array_equal(answer(second), rows[1] + 2 * rows[2])
    del first, second, session, weights
    assert cudart.held == 0


def test_weights_that_do_not_fit(folder: Path, cudart: FakeCudart) -> None:
    cudart.room = 20_000
    weights = weights_of(folder)
    assert weights is not None
    with pytest.raises(DeviceOutOfMemory, match="the weights take 0 MB, and cuda:0 has no room"):
        weights.share("a.onnx", options_of_a_session())
    cudart.room = None
    np.testing.assert_array_equal(
        answer(opened(folder, weights, "a.onnx")), 2 * np.arange(SIZE) + SIZE
    )


def test_a_file_that_is_too_short(folder: Path, cudart: FakeCudart) -> None:
    (folder / "weights").write_bytes(bytes(SIZE * 4 + 8))
    weights = weights_of(folder)
    assert weights is not None
    with pytest.raises(ArtifactCorrupt, match="weights does not hold what w1 needs"):
        weights.share("a.onnx", options_of_a_session())
    assert cudart.held == 0


def test_without_such_a_device_there_is_nothing_to_share(folder: Path, cudart: FakeCudart) -> None:
    assert weights_of(folder, 1) is None  # a session says what is wrong
    cudart.devices = 0
    assert weights_of(folder) is None


# The library that ONNX Runtime links.


def test_which_library_is_linked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert linked_cudart.linked_cudart(onnxruntime) is None  # the CPU's build
    asked: list[str] = []

    def load(name: str) -> Any:
        asked.append(name)
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", load)
    of_a_gpu: Any = SimpleNamespace(cuda_version="13.0")
    assert linked_cudart.linked_cudart(of_a_gpu) is None
    assert asked == ["libcudart.so.13"]


def test_errors_of_the_linked_library() -> None:
    library: Any = SimpleNamespace(
        cudaGetErrorString=lambda code: f"error {code.value}".encode(),
        cudaFree=lambda address: address.value or 0,
    )
    cudart = linked_cudart.LinkedCudart(library)
    assert call(cudart, "cudaFree", 0) is None
    with pytest.raises(BackendError, match=r"^cudaFree failed: error 719$"):
        call(cudart, "cudaFree", 719)
    with pytest.raises(OutOfMemoryError, match="cudaFree: the GPU has no memory left"):
        call(cudart, "cudaFree", 2)
