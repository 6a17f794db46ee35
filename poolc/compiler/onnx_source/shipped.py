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

from poolc.compiler.onnx_source.checks import OR_WEIGHTS, check_graph
from poolc.compiler.onnx_source.tensors import read_small
from poolc.compiler.onnx_source.widen import widen
from poolc.errors import ArtifactCorrupt, CorruptWeights, UnsupportedModel
from poolc.model_cache.onnx_paths import external_locations
from poolc.model_cache.source_files import onnx_graph
from poolc.runtime.backends.onnxruntime import import_onnxruntime
from poolc.spec import INPUT_IDS, TOKEN_TYPE_IDS

# What a graph may call the last hidden states, and a vector of the text that it made of them.
_TOKEN_NAMES = ("last_hidden_state", "token_embeddings")
_SENTENCE_NAME = "sentence_embedding"
_LOGITS_NAME = "logits"
# The least cosine of an output in fp16 and in fp32.
_SAME = 0.999

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Shipped:
    """An opened graph: ``outputs`` are the shapes of a run of one text of two tokens.

    A property is None where the graph has no such output.
    """

    file: str  # relative to the model's folder
    model: ir.Model
    session: Any
    outputs: Mapping[str, tuple[int, ...]]
    half: bool  # whether it was shipped in fp16; model and session are then in fp32

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
    def token_logits(self) -> str | None:
        """The output that holds one row of logits a token."""
        return _LOGITS_NAME if len(self.outputs.get(_LOGITS_NAME, ())) == 3 else None

    @property
    def inputs(self) -> list[str]:
        """The names of the graph's inputs."""
        return [value.name for value in self.session.get_inputs()]

    def run(self, feeds: Arrays) -> dict[str, npt.NDArray[np.float32]]:
        """Run the graph without heads; inputs that are not fed are zeros, outputs fp32."""
        zeros = np.zeros_like(feeds[INPUT_IDS])
        fed = {name: feeds.get(name, zeros) for name in self.inputs}
        read = (self.tokens, self.sentence, self.logits, self.token_logits)
        names = [name for name in read if name is not None]
        found = self.session.run(names, fed)
        return {name: value.astype(np.float32) for name, value in zip(names, found, strict=True)}


def open_shipped(folder: Path, work: Path) -> Shipped:
    """Open the graph of a model's folder; ``work`` takes copies of weights that are links.

    Raises UnsupportedModel for a graph that does not compile, CorruptWeights for one that ONNX
    Runtime cannot load.
    """
    present = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    file = onnx_graph(present) or ""  # a compile without one ended before this
    path = _readable(folder / file, file, work)
    try:
        model = ir.load(path)
        check_graph(model, file)
        session = _session(path, file)
        found = _try(session, file)
        read_small(model)
        half = widen(model)
        if half:
            session = _widened(model, file, work)
            _check_widened(found, _try(session, file), file)
    except (OSError, ValueError, TypeError) as error:
        raise CorruptWeights(f"{file} cannot be read as ONNX: {_line(error)}") from error
    return Shipped(file, model, session, {name: np.shape(v) for name, v in found.items()}, half)


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
                f"{file} keeps weights in {name!r}; poolc reads files beside the graph only: save "
                "it with another location (onnx.save_model)"
            )
        if not (path.parent / name).is_file():
            raise CorruptWeights(
                f"{file} keeps weights in {name}, which is missing beside it: download that too"
            )
    if not locations or not any((path.parent / name).is_symlink() for name in locations):
        return path
    target = work / "onnx"
    target.mkdir()
    for name in (path.name, *locations):
        shutil.copyfile(path.parent / name, target / name)
    return target / path.name


def _session(path: Path, file: str) -> Any:
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library's exception classes share no public base
        raise CorruptWeights(f"ONNX Runtime cannot load {file}: {_line(error)}") from error


def _widened(model: ir.Model, file: str, work: Path) -> Any:
    path = work / "widened" / "model.onnx"
    path.parent.mkdir()
    ir.save(model.clone(), path, external_data="model.onnx.data")
    return _session(path, file)


def _try(session: Any, file: str) -> dict[str, npt.NDArray[Any]]:
    """Run one text of two tokens; return every output. Raises what ``open_shipped`` raises."""
    names = [value.name for value in session.get_outputs()]
    known = (*_TOKEN_NAMES, _SENTENCE_NAME, _LOGITS_NAME)
    if not set(known) & set(names):
        raise UnsupportedModel(
            f"{file} has outputs {', '.join(names)}; poolc reads {', '.join(known)}: name one so, "
            f"{OR_WEIGHTS}"
        )
    feeds = {value.name: np.ones((1, 2), np.int64) for value in session.get_inputs()}
    if TOKEN_TYPE_IDS in feeds:
        feeds[TOKEN_TYPE_IDS] = np.zeros((1, 2), np.int64)
    try:
        found = session.run(names, feeds)
    except Exception as error:  # as above
        raise CorruptWeights(
            f"{file} does not run on two tokens: {_line(error)}: export it again, {OR_WEIGHTS}"
        ) from error
    return dict(zip(names, found, strict=True))


def _check_widened(shipped: Arrays, widened: Arrays, file: str) -> None:
    """Refuse a graph whose numbers are others in fp32: its fp16 overflows."""
    for name, value in shipped.items():
        left, right = (np.ravel(v).astype(np.float64) for v in (value, widened[name]))
        norms = float(np.linalg.norm(left) * np.linalg.norm(right))
        if not np.isfinite(left).all() or left @ right < _SAME * norms:
            raise UnsupportedModel(
                f"{file} computes {name} in fp16 otherwise than in fp32: give the fp32 export, "
                f"{OR_WEIGHTS}"
            )


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
