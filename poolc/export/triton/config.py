"""The ``config.pbtxt`` of each model of a repository: tokenizer step, graph or engine, ensemble.

Fields by Triton's model configuration (model_config.proto). Knows nothing about files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from poolc.export.answers import Answer
from poolc.export.triton.batching import Batching
from poolc.export.triton.pbtxt import Word, parameters
from poolc.model_cache.manifest import TensorInfo
from poolc.spec import Target

TEXT_INPUTS = ("text",)
PAIR_INPUTS = ("query", "document")
LABELS_FILE = "labels.txt"

_TYPES = {"int64": "TYPE_INT64", "int32": "TYPE_INT32", "float32": "TYPE_FP32"}
# As poolc's own sessions run compiled graphs: one thread an instance, no work on the graph, and no
# memory plans for each shape.
_SESSION = {
    "intra_op_thread_count": "1",
    "inter_op_thread_count": "1",
    "enable_mem_pattern": "0",
    "share_session_between_instances": "1",
}
_NO_GRAPH_WORK = 2


@dataclass(frozen=True, slots=True)
class Names:
    """The models of a repository."""

    ensemble: str

    @property
    def tokenizer(self) -> str:
        """The step that turns texts into token ids."""
        return f"{self.ensemble}_tokenizer"

    @property
    def model(self) -> str:
        """The graph or engine."""
        return f"{self.ensemble}_model"


@dataclass(frozen=True, slots=True)
class Served:
    """What the three configurations are about.

    ``inputs`` and ``outputs`` are those of the graph; ``texts`` what a request sends.
    """

    names: Names
    target: Target
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[tuple[str, int], ...]  # name, numbers a text
    answers: tuple[Answer, ...]
    texts: tuple[str, ...]
    has_labels: bool


def tokenizer_config(served: Served, batching: Batching) -> dict[str, Any]:
    """Return the configuration of the Python step."""
    return {
        "name": served.names.tokenizer,
        "backend": "python",
        "max_batch_size": batching.max_batch_size,
        "input": _text_inputs(served),
        "output": [_tensor(one.name, one.dtype, [-1]) for one in served.inputs],
        "instance_group": [{"count": 1, "kind": Word("KIND_CPU")}],
        # Requests that wait are tokenised together.
        "dynamic_batching": {},
    }


def model_config(served: Served, batching: Batching) -> dict[str, Any]:
    """Return the configuration of the graph or engine."""
    on_cpu = served.target is Target.CPU
    is_engine = served.target is Target.TENSORRT
    group: dict[str, Any] = {
        "count": batching.instances,
        "kind": Word("KIND_CPU" if on_cpu else "KIND_GPU"),
        "profile": [str(number) for number in batching.profiles],
    }
    return {
        "name": served.names.model,
        "platform": "tensorrt_plan" if is_engine else "onnxruntime_onnx",
        "max_batch_size": batching.max_batch_size,
        "input": [_tensor(one.name, one.dtype, [-1]) for one in served.inputs],
        "output": [_output(served, name, size) for name, size in served.outputs],
        "instance_group": [group],
        "dynamic_batching": {
            "preferred_batch_size": list(batching.preferred),
            "max_queue_delay_microseconds": batching.queue_delay_us,
        },
        "optimization": None if is_engine else {"graph": {"level": _NO_GRAPH_WORK}},
        "parameters": [] if is_engine else parameters(_SESSION),
    }


def ensemble_config(served: Served, batching: Batching) -> dict[str, Any]:
    """Return the configuration of the model that clients ask."""
    tokens = {one.name: one.name for one in served.inputs}
    asked = {answer.tensor: answer.name for answer in served.answers}
    return {
        "name": served.names.ensemble,
        "platform": "ensemble",
        "max_batch_size": batching.max_batch_size,
        "input": _text_inputs(served),
        "output": [_tensor(one.name, "float32", [one.size]) for one in served.answers],
        "ensemble_scheduling": {
            "step": [
                _step(served.names.tokenizer, {name: name for name in served.texts}, tokens),
                _step(served.names.model, tokens, asked),
            ]
        },
    }


def _step(model: str, inputs: dict[str, str], outputs: dict[str, str]) -> dict[str, Any]:
    return {
        "model_name": model,
        "model_version": -1,
        "input_map": [{"key": name, "value": tensor} for name, tensor in inputs.items()],
        "output_map": [{"key": name, "value": tensor} for name, tensor in outputs.items()],
    }


def _text_inputs(served: Served) -> list[dict[str, Any]]:
    return [{"name": name, "data_type": Word("TYPE_STRING"), "dims": [1]} for name in served.texts]


def _output(served: Served, name: str, size: int) -> dict[str, Any]:
    labels = LABELS_FILE if served.has_labels else None
    return _tensor(name, "float32", [size]) | {"label_filename": labels}


def _tensor(name: str, dtype: str, dims: Sequence[int]) -> dict[str, Any]:
    return {"name": name, "data_type": Word(_TYPES[dtype]), "dims": list(dims)}
