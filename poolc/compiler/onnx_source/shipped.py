"""The ONNX graph that a model ships: opened, refused by name where it cannot be used, run.

Knows nothing about heads. What the graph computes it tells by running it once.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from poolc.errors import ArtifactCorrupt, CorruptWeights, UnsupportedModel
from poolc.model_cache.onnx_paths import external_locations
from poolc.model_cache.source_files import onnx_files
from poolc.runtime.backends.onnxruntime import import_onnxruntime
from poolc.spec import ATTENTION_MASK, INPUT_IDS, TOKEN_TYPE_IDS

_OPSETS = range(11, 24)
_INPUTS = (INPUT_IDS, ATTENTION_MASK, TOKEN_TYPE_IDS)
_DOMAINS = frozenset({"", "ai.onnx", "com.microsoft"})
# What a graph may call the last hidden states, and a vector of the text that it made of them.
_TOKEN_NAMES = ("last_hidden_state", "token_embeddings")
_SENTENCE_NAME = "sentence_embedding"
_LOGITS_NAME = "logits"
# Parts of the names of operators that compute with integers.
_QUANTIZED = ("QuantizeLinear", "QLinear", "MatMulInteger", "ConvInteger", "MatMulNBits", "QGemm")

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Shipped:
    """An opened graph: ``outputs`` are the shapes of a run of one text of two tokens."""

    file: str  # relative to the model's folder
    model: ir.Model
    session: Any
    outputs: Mapping[str, tuple[int, ...]]
    half: bool  # whether it computes in fp16

    @property
    def tokens(self) -> str | None:
        """The output that holds one vector a token."""
        names = (name for name in _TOKEN_NAMES if len(self.outputs.get(name, ())) == 3)
        return next(names, None)

    @property
    def sentence(self) -> str | None:
        """The output that holds one vector a text."""
        return _SENTENCE_NAME if len(self.outputs.get(_SENTENCE_NAME, ())) == 2 else None

    @property
    def logits(self) -> str | None:
        """The output that holds one row of logits a text."""
        return _LOGITS_NAME if len(self.outputs.get(_LOGITS_NAME, ())) == 2 else None

    @property
    def inputs(self) -> list[str]:
        """The names of the graph's inputs."""
        return [value.name for value in self.session.get_inputs()]

    def run(self, feeds: Arrays) -> dict[str, npt.NDArray[np.float32]]:
        """Run the graph as it was shipped; inputs that are not fed are zeros, outputs fp32."""
        zeros = np.zeros_like(feeds[INPUT_IDS])
        fed = {name: feeds.get(name, zeros) for name in self.inputs}
        names = [name for name in (self.tokens, self.sentence, self.logits) if name is not None]
        found = self.session.run(names, fed)
        return {name: value.astype(np.float32) for name, value in zip(names, found, strict=True)}


def open_shipped(folder: Path, work: Path) -> Shipped:
    """Open the graph of a model's folder; ``work`` takes copies of weights that are links.

    Raises UnsupportedModel for a graph that does not compile, CorruptWeights for one that ONNX
    Runtime cannot load.
    """
    present = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    file = next(
        name for name in onnx_files(present) if name.endswith("/model.onnx") or name == "model.onnx"
    )
    path = _readable(folder / file, file, work)
    try:
        model = ir.load(path)
        _check(model, file)
        session = _session(path, file)
    except (OSError, ValueError, TypeError) as error:
        raise CorruptWeights(f"{file} cannot be read as ONNX: {_line(error)}") from error
    shapes, half = _try(session, file)
    return Shipped(file, model, session, shapes, half)


def _readable(path: Path, file: str, work: Path) -> Path:
    """Check where the graph's weights lie; return a place where none of its files is a link.

    ONNX Runtime follows no links to weights, and the hub's cache is made of them.
    """
    try:
        with path.open("rb") as graph:
            locations = set(external_locations(graph, path.stat().st_size))
    except ArtifactCorrupt as error:
        raise CorruptWeights(f"{file} cannot be read as ONNX: {error}") from error
    for name in sorted(locations):
        if not name or Path(name).name != name:
            raise UnsupportedModel(
                f"{file} keeps weights in {name!r}; poolc reads files beside the graph only"
            )
        if not (path.parent / name).is_file():
            raise CorruptWeights(f"{file} keeps weights in {name}, which is missing beside it")
    if not locations or not any((path.parent / name).is_symlink() for name in locations):
        return path
    target = work / "onnx"
    target.mkdir()
    for name in (path.name, *locations):
        shutil.copyfile(path.parent / name, target / name)
    return target / path.name


def _check(model: ir.Model, file: str) -> None:
    opset = model.opset_imports.get("", model.opset_imports.get("ai.onnx", 0))
    if opset not in _OPSETS:
        raise UnsupportedModel(
            f"{file} has opset {opset}; poolc reads {_OPSETS[0]} to {_OPSETS[-1]}"
        )
    foreign = sorted({node.domain for node in model.graph.all_nodes()} - _DOMAINS)
    foreign = [name for name in foreign if not any(f[0] == name for f in model.functions)]
    if foreign:
        raise UnsupportedModel(f"{file} has operators of domain {foreign[0]}, which poolc lacks")
    for node in model.graph.all_nodes():
        if any(part in node.op_type for part in _QUANTIZED):
            raise UnsupportedModel(
                f"{file} is quantised (it has {node.op_type}); poolc compiles the model's own "
                "weights: give the unquantised export"
            )
    initializers = model.graph.initializers
    _check_inputs([v for v in model.graph.inputs if v.name not in initializers], file)


def _check_inputs(inputs: list[ir.Value], file: str) -> None:
    names = [str(value.name) for value in inputs]
    for name in names:
        if "past_key_values" in name:
            raise UnsupportedModel(
                f"{file} is an export for text generation (its input {name} holds earlier tokens): "
                "poolc reads exports of the task feature-extraction or text-classification"
            )
        if name not in _INPUTS:
            raise UnsupportedModel(f"{file} has input {name}; poolc feeds {', '.join(_INPUTS)}")
    for name in (INPUT_IDS, ATTENTION_MASK):
        if name not in names:
            raise UnsupportedModel(f"{file} has no input {name}")
    for value in inputs:
        if value.dtype is not ir.DataType.INT64:
            raise UnsupportedModel(
                f"{file}: input {value.name} is {value.dtype}; poolc feeds INT64"
            )
        dims = None if value.shape is None else list(value.shape.dims)
        if dims is not None and (len(dims) != 2 or any(isinstance(dim, int) for dim in dims)):
            raise UnsupportedModel(
                f"{file}: input {value.name} has the fixed shape {value.shape}; texts differ in "
                "number and length: export it with dynamic axes batch and sequence"
            )


def _session(path: Path, file: str) -> Any:
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library's exception classes share no public base
        raise CorruptWeights(f"ONNX Runtime cannot load {file}: {_line(error)}") from error


def _try(session: Any, file: str) -> tuple[dict[str, tuple[int, ...]], bool]:
    """Run one text of two tokens; return every output's shape, and whether any is in fp16."""
    names = [value.name for value in session.get_outputs()]
    feeds = {value.name: np.ones((1, 2), np.int64) for value in session.get_inputs()}
    if TOKEN_TYPE_IDS in feeds:
        feeds[TOKEN_TYPE_IDS] = np.zeros((1, 2), np.int64)
    try:
        found = session.run(names, feeds)
    except Exception as error:  # as above
        raise CorruptWeights(f"{file} does not run on two tokens: {_line(error)}") from error
    shapes = {name: np.shape(value) for name, value in zip(names, found, strict=True)}
    known = (*_TOKEN_NAMES, _SENTENCE_NAME, _LOGITS_NAME)
    if not set(known) & shapes.keys():
        raise UnsupportedModel(
            f"{file} has outputs {', '.join(names)}; poolc reads {', '.join(known)}"
        )
    return shapes, any(getattr(value, "dtype", None) == np.float16 for value in found)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
