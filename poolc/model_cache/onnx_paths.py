"""Which files an ONNX graph points at: a walk over the protobuf wire format.

Knows nothing about artifacts. It stands in for the ``onnx`` package, which the runtime does not
depend on, and it reads what ONNX Runtime would read: every tensor wherever the schema allows one
(initializers, sparse initializers, node attributes, subgraphs, functions, training graphs). Tensor
bytes are skipped over, so memory stays at one small window however large or hostile the file is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from poolc.errors import ArtifactCorrupt

_WINDOW_BYTES = 1 << 16
_MAX_DEPTH = 100  # protobuf's own default limit on nested messages
_MAX_LOCATION_BYTES = 4096
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
        tag, position = self._varint(position, end)
        number, wire = tag >> 3, tag & 7
        if not 0 < number < 1 << 29:
            raise ArtifactCorrupt("malformed protobuf: impossible field number")
        start = position
        if wire == 0:
            _, stop = self._varint(position, end)
        elif wire == 1:
            stop = position + 8
        elif wire == _LENGTH_DELIMITED:
            length, start = self._varint(position, end)
            stop = start + length
        elif wire == 5:
            stop = position + 4
        else:  # groups: ONNX has none
            raise ArtifactCorrupt(f"malformed protobuf: wire type {wire}")
        if stop > end:
            raise ArtifactCorrupt("malformed protobuf: a field runs past its message")
        return number, wire, start, stop

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

    def _varint(self, position: int, end: int) -> tuple[int, int]:
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
