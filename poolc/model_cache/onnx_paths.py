"""What an ONNX graph points at outside itself: a walk over the protobuf wire format.

Knows nothing about artifacts. It stands in for the ``onnx`` package, which the runtime does not
depend on, and it reads what ONNX Runtime would read: every tensor wherever the schema allows one
(initializers, sparse initializers, node attributes, subgraphs, functions, training graphs). Tensor
bytes are skipped over, so memory stays at one small window however large or hostile the file is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from poolc.errors import ArtifactCorrupt

_WINDOW_BYTES = 1 << 16
_MAX_DEPTH = 100  # protobuf's own default limit on nested messages
_MAX_LOCATION_BYTES = 4096
_MAX_RANK = 64
_LENGTH_DELIMITED = 2

_ENTRY = "entry"
# Message kind -> field number -> kind of the message in that field (onnx.proto).
_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: _ENTRY},
}


def external_locations(file: BinaryIO, size: int) -> Iterator[str]:
    """Yield the external-data location of every tensor in an ONNX file of ``size`` bytes.

    Raises ArtifactCorrupt for bytes that are not a protobuf message of that shape.
    """
    reader = _Reader(file)
    # Depth first with one frame a level: a list of pending children would grow with the file.
    stack = [("model", 0, size)]
    while stack:
        kind, position, end = stack.pop()
        if position == end:
            continue
        field, wire, start, stop = reader.field(position, end)
        stack.append((kind, stop, end))
        child = _CHILDREN[kind].get(field) if wire == _LENGTH_DELIMITED else None
        if child == _ENTRY:
            yield from _entry_locations(reader, start, stop)
        elif child is not None:
            if len(stack) >= _MAX_DEPTH:
                raise ArtifactCorrupt("messages are nested too deeply for an ONNX graph")
            stack.append((child, start, stop))


@dataclass(frozen=True, slots=True)
class ExternalTensor:
    """An initializer whose bytes lie in another file.

    ``data_type`` is ONNX's number of it, ``location`` relative to the graph, ``offset`` and
    ``length`` in bytes.
    """

    name: str
    data_type: int
    shape: tuple[int, ...]
    location: str
    offset: int
    length: int


def external_initializers(file: BinaryIO, size: int) -> Iterator[ExternalTensor]:
    """Yield the initializers of the main graph of an ONNX file whose bytes lie elsewhere.

    Not those that do not say how long they are. Raises ArtifactCorrupt as ``external_locations``
    does.
    """
    reader = _Reader(file)
    for number, wire, start, stop in reader.fields(0, size):
        if (number, wire) != (7, _LENGTH_DELIMITED):
            continue
        for field, kind, first, end in reader.fields(start, stop):
            if (field, kind) == (5, _LENGTH_DELIMITED):
                yield from _external(reader, first, end)


def _external(reader: _Reader, position: int, end: int) -> list[ExternalTensor]:
    """Read a TensorProto; nothing where its bytes are in it."""
    name, data_type, shape, entries = "", 0, list[int](), dict[str, str]()
    for number, wire, start, stop in reader.fields(position, end):
        match number, wire:
            case 1, _:
                shape += _numbers(reader, wire, start, stop)
            case 2, 0:
                data_type = reader.varint(start, stop)[0]
            case 8, 2:
                name = _text(reader, start, stop)
            case 13, 2:
                pair = {key: _text(reader, *at) for key, _, *at in reader.fields(start, stop)}
                entries[pair.get(1, "")] = pair.get(2, "")
        if len(shape) > _MAX_RANK:
            raise ArtifactCorrupt(f"tensor {name!r} has more than {_MAX_RANK} dimensions")
    if "location" not in entries or "length" not in entries:
        return []
    try:
        offset, length = int(entries.get("offset", "0")), int(entries["length"])
    except ValueError as error:
        raise ArtifactCorrupt(f"tensor {name!r} does not say where its bytes lie") from error
    return [ExternalTensor(name, data_type, tuple(shape), entries["location"], offset, length)]


def _numbers(reader: _Reader, wire: int, position: int, end: int) -> list[int]:
    """Read a repeated number: one, or several in one field, which proto3 calls packed."""
    found = list[int]()
    while wire in (0, _LENGTH_DELIMITED) and position < end and len(found) <= _MAX_RANK:
        number, position = reader.varint(position, end)
        found.append(number)
    return found


def _entry_locations(reader: _Reader, position: int, end: int) -> list[str]:
    """Read one key-value pair of ``external_data``; fields may repeat and come in any order."""
    is_location = False
    values: list[tuple[int, int]] = []
    while position < end:
        field, wire, start, stop = reader.field(position, end)
        if wire == _LENGTH_DELIMITED and field == 1:
            is_location |= stop - start == 8 and reader.read(start, 8) == b"location"
        elif wire == _LENGTH_DELIMITED and field == 2:
            values.append((start, stop))
        position = stop
    return [_text(reader, start, stop) for start, stop in values] if is_location else []


def _text(reader: _Reader, start: int, stop: int) -> str:
    if stop - start > _MAX_LOCATION_BYTES:
        raise ArtifactCorrupt(f"an external-data location is {stop - start} bytes long")
    try:
        return reader.read(start, stop - start).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ArtifactCorrupt("an external-data location is not UTF-8") from error


class _Reader:
    """Random access to a file through one window."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._window = b""
        self._start = 0

    def field(self, position: int, end: int) -> tuple[int, int, int, int]:
        """Return (field number, wire type, start of the payload, end of the payload)."""
        tag, position = self.varint(position, end)
        number, wire = tag >> 3, tag & 7
        if not 0 < number < 1 << 29:
            raise ArtifactCorrupt("malformed protobuf: impossible field number")
        start = position
        if wire == 0:
            _, stop = self.varint(position, end)
        elif wire == 1:
            stop = position + 8
        elif wire == _LENGTH_DELIMITED:
            length, start = self.varint(position, end)
            stop = start + length
        elif wire == 5:
            stop = position + 4
        else:  # groups: ONNX has none
            raise ArtifactCorrupt(f"malformed protobuf: wire type {wire}")
        if stop > end:
            raise ArtifactCorrupt("malformed protobuf: a field runs past its message")
        return number, wire, start, stop

    def fields(self, position: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield the fields of a message: see ``field``."""
        while position < end:
            number, wire, start, position = self.field(position, end)
            yield number, wire, start, position

    def read(self, position: int, length: int) -> bytes:
        """Return ``length`` bytes; the caller bounds it."""
        offset = position - self._start
        if not 0 <= offset <= len(self._window) - length:
            self._move(position)
            offset = 0
        piece = self._window[offset : offset + length]
        if len(piece) != length:
            raise ArtifactCorrupt("the file ended early")
        return piece

    def varint(self, position: int, end: int) -> tuple[int, int]:
        """Return a number and where it ends."""
        value = 0
        for shift in range(0, 70, 7):
            if position >= end:
                break
            offset = position - self._start
            if not 0 <= offset < len(self._window):
                self._move(position)
                offset = 0
            byte = self._window[offset]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, position
        raise ArtifactCorrupt("malformed protobuf: a number does not end")

    def _move(self, position: int) -> None:
        self._file.seek(position)
        self._window = self._file.read(_WINDOW_BYTES)
        self._start = position
        if not self._window:
            raise ArtifactCorrupt("the file ended early")
