"""Weights as this CPU's kernels want them, mapped by every graph and process instead of made anew.

ONNX Runtime packs matrices when it loads a model. Here it does so at compile: what it packed is
appended to the weights file, and a second graph file refers to it. The runtime opens that one where
ONNX Runtime and the kind of CPU are those that packed, and the plain one elsewhere: both compute
the same.

Format: an initializer's ``external_data`` has, besides ``location``, ``offset`` and ``length``,
``prepacked_N: key|offset;length;flag[|...]``, as ONNX Runtime writes them with
``session.save_external_prepacked_constant_initializers`` (its tensor_external_data_info.cc).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

import onnx

from poolc.errors import CompileError
from poolc.runtime.backends.onnxruntime import import_onnxruntime, session_options

_ALIGNMENT = 4096  # pages, so that segments are mapped and not copied
# Packing less takes a few milliseconds at load, less than a second graph file is worth.
_WORTH_BYTES = 4 << 20
_MIN_BYTES = 1024  # smaller tensors stay in the graph
_DOMAINS = ("", "com.microsoft")  # of ours; the runtime imports all that it knows
_PACKED = "prepacked_"


def prepack(folder: Path, files: Sequence[str], data_file: str) -> dict[str, str]:
    """Write the packed twins of the graphs ``files``; return their names, by those of the graphs.

    Appends to the weights file; empty where packing saves nothing. The same graphs give the same
    bytes. Raises CompileError where ONNX Runtime cannot pack.
    """
    if (folder / data_file).stat().st_size < _WORTH_BYTES:
        return {}
    twins: dict[str, str] = {}
    segments = _Segments()
    with (folder / data_file).open("ab") as out:
        for file in files:
            with TemporaryDirectory(dir=folder.parent) as temporary:
                packed = Path(temporary) / "model.onnx"
                _save_packed(folder / file, packed)
                model = onnx.load(packed, load_external_data=False)
                places = _places(onnx.load(folder / file, load_external_data=False))
                _refer(model, packed.parent, places, segments, out)
            twins[file] = f"{file.removesuffix('.onnx')}.packed.onnx"
            (folder / twins[file]).write_bytes(model.SerializeToString(deterministic=True))
    return twins


def _save_packed(source: Path, destination: Path) -> None:
    ort = import_onnxruntime()
    options = session_options(ort)
    options.optimized_model_filepath = str(destination)
    for key, value in (
        ("session.optimized_model_external_initializers_file_name", "weights"),
        ("session.optimized_model_external_initializers_min_size_in_bytes", str(_MIN_BYTES)),
        ("session.save_external_prepacked_constant_initializers", "1"),
    ):
        options.add_session_config_entry(key, value)
    try:
        ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library's exception classes share no public base
        raise CompileError(f"ONNX Runtime cannot pack {source.name}: {error}") from error


@dataclass(slots=True)
class _Segments:
    """Where each distinct packed matrix lies in the weights file."""

    places: dict[str, int] = field(default_factory=dict)

    def put(self, content: bytes, out: BinaryIO) -> int:
        digest = hashlib.sha256(content).hexdigest()
        if digest not in self.places:
            out.write(b"\0" * (-out.tell() % _ALIGNMENT))
            self.places[digest] = out.tell()
            out.write(content)
        return self.places[digest]


def _places(plain: onnx.ModelProto) -> dict[str, dict[str, str]]:
    """Return where the plain graph's tensors lie, by name."""
    return {
        tensor.name: {entry.key: entry.value for entry in tensor.external_data}
        for tensor in plain.graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    }


def _refer(
    model: onnx.ModelProto,
    folder: Path,
    places: dict[str, dict[str, str]],
    segments: _Segments,
    out: BinaryIO,
) -> None:
    """Let ``model`` refer to the plain graph's tensors, and to packed ones appended to ``out``."""
    kept = [entry for entry in model.opset_import if entry.domain in _DOMAINS]
    del model.opset_import[:]
    model.opset_import.extend(sorted(kept, key=lambda entry: entry.domain))
    for tensor in model.graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        with (folder / entries["location"]).open("rb") as data:
            packed = {
                key: _moved(value, data, segments, out)
                for key, value in entries.items()
                if key.startswith(_PACKED)
            }
        del tensor.external_data[:]
        for key, value in {**places[tensor.name], **packed}.items():
            tensor.external_data.add(key=key, value=value)


def _moved(entry: str, data: BinaryIO, segments: _Segments, out: BinaryIO) -> str:
    """Copy the buffers of ``key|offset;length;flag|...``; return the entry with their places."""
    key, *buffers = entry.split("|")
    placed = []
    for offset, length, *rest in (buffer.split(";") for buffer in buffers if buffer):
        data.seek(int(offset))
        place = segments.put(data.read(int(length)), out)
        placed.append(";".join([str(place), length, *rest]))
    return "|".join([key, *placed])
