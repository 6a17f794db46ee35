"""A stand-in for Triton: its Python module, and an ensemble of a repository run step by step.

Configurations are read with Triton's own protobuf messages.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

Array = npt.NDArray[Any]

_ALL_DISABLED = 2  # what Triton's ONNX Runtime backend calls that level


def read_config(folder: Path) -> Any:
    """Parse a model's config.pbtxt. Raises ParseError for a field that Triton does not have."""
    text = (folder / "config.pbtxt").read_text(encoding="utf-8")
    return text_format.Parse(text, model_config_pb2.ModelConfig())


class Tensor:
    """``pb_utils.Tensor``."""

    def __init__(self, name: str, array: Array) -> None:
        self._name, self._array = name, array

    def name(self) -> str:
        """Return the tensor's name."""
        return self._name

    def as_numpy(self) -> Array:
        """Return the tensor's values."""
        return self._array


@dataclass
class TritonError:
    """``pb_utils.TritonError``."""

    INVALID_ARG: ClassVar[int] = 3

    message: str
    code: int = 1


@dataclass
class InferenceResponse:
    """``pb_utils.InferenceResponse``."""

    output_tensors: Sequence[Tensor] = ()
    error: TritonError | None = None


@dataclass
class Request:
    """What Triton hands to the Python backend."""

    tensors: Mapping[str, Array]
    asked: Mapping[str, Any]

    def parameters(self) -> str:
        """Return the request's parameters, as JSON."""
        return json.dumps(dict(self.asked))


def get_input_tensor_by_name(request: Request, name: str) -> Tensor:
    """``pb_utils.get_input_tensor_by_name``."""
    return Tensor(name, request.tensors[name])


@contextmanager
def python_backend() -> Iterator[None]:
    """Let ``import triton_python_backend_utils`` find this module."""
    sys.modules["triton_python_backend_utils"] = sys.modules[__name__]
    try:
        yield
    finally:
        del sys.modules["triton_python_backend_utils"]


def load_step(file: Path) -> ModuleType:
    """Import a Python step as the backend does."""
    spec = importlib.util.spec_from_file_location("triton_step", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with python_backend():
        spec.loader.exec_module(module)
    return module


class Repository:
    """Serves the ensemble of a model repository in this process."""

    def __init__(self, folder: Path, ensemble: str) -> None:
        self.folder = folder
        self.config = read_config(folder / ensemble)
        tokens, self.model = (step for step in self.config.ensemble_scheduling.step)
        self.tokenizer = tokens
        step = load_step(folder / tokens.model_name / "1" / "model.py")
        self._step = step.TritonPythonModel()
        self._step.initialize({})
        graph = folder / self.model.model_name / "1" / "model.onnx"
        options = ort.SessionOptions()
        level = read_config(folder / self.model.model_name).optimization.graph.level
        assert level == _ALL_DISABLED
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._session = ort.InferenceSession(
            str(graph), options, providers=["CPUExecutionProvider"]
        )

    def tokens(self, texts: Sequence[tuple[str, ...]], **asked: Any) -> dict[str, Array]:
        """Return the tensors of the tokenizer step. Raises ValueError with a response's error."""
        columns = list(zip(*texts, strict=True))
        names = [one.name for one in self.config.input]
        tensors = {
            name: np.array([[text.encode()] for text in column], np.object_)
            for name, column in zip(names, columns, strict=True)
        }
        (response,) = self._step.execute([Request(tensors, asked)])
        if response.error is not None:
            assert response.error.code == TritonError.INVALID_ARG
            raise ValueError(response.error.message)
        return {one.name(): one.as_numpy() for one in response.output_tensors}

    def ask(self, texts: Sequence[tuple[str, ...]], **asked: Any) -> dict[str, Array]:
        """Return what the ensemble answers a request."""
        tokens = self.tokens(texts, **asked)
        wired = {self.tokenizer.output_map[name]: array for name, array in tokens.items()}
        feeds = {name: wired[tensor] for name, tensor in self.model.input_map.items()}
        outputs = dict(self.model.output_map)
        found = self._session.run(list(outputs), feeds)
        answered = dict(zip(outputs.values(), found, strict=True))
        assert set(answered) == {one.name for one in self.config.output}
        return answered
