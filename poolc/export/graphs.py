"""A graph of an artifact as a file of its own: other outputs, and only the weights that it reads.

Owns editing ONNX files and copying their external data. Knows nothing about who runs them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from poolc.errors import ArtifactCorrupt, CannotExport, MissingDependency

GRAPH_FILE = "model.onnx"
DATA_FILE = "model.onnx.data"

# Page-aligned, so that ONNX Runtime can map a tensor instead of copying it.
_ALIGNMENT = 4096
_COPIED_BYTES = 1 << 22
# Beyond it protobuf refuses a message; weights are beside the graph, so nothing comes near.
_MOST_GRAPH_BYTES = (1 << 31) - 1

Edit = Callable[[Any], None]
"""Changes a GraphProto in place."""


def write_graph(source: Path, folder: Path, edit: Edit) -> None:
    """Write the graph of ``source``, edited, into ``folder`` with the weights that it reads.

    Weights are copied piece by piece, whatever their size. Raises MissingDependency without onnx.
    """
    onnx = import_onnx()
    model = onnx.load(str(source), load_external_data=False)
    edit(model.graph)
    _copy_weights(model, source.parent, folder)
    content = model.SerializeToString()
    if len(content) > _MOST_GRAPH_BYTES:
        raise CannotExport(f"{source.name} has {len(content)} bytes of graph: too large to edit")
    (folder / GRAPH_FILE).write_bytes(content)


def import_onnx() -> Any:
    """Import onnx, or say what to install: the runtime does without it."""
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise MissingDependency(
            "exporting rewrites the graph with onnx, which is not installed: pip install onnx"
        ) from error
    return onnx


def keep_outputs(names: Sequence[str]) -> Edit:
    """Return an edit that leaves these outputs, in this order."""

    def edit(graph: Any) -> None:
        outputs = {one.name: one for one in graph.output}
        kept = [outputs[name] for name in names]
        del graph.output[:]
        graph.output.extend(kept)

    return edit


def cut_vectors(source: str, size: int, *, normalize: bool, output: str) -> Edit:
    """Return an edit that makes vectors [batch, size] of ``source`` the only output.

    Normalising again after the cut is what poolc's runtime does (``heads/embeddings.py``).
    """

    def edit(graph: Any) -> None:
        helper = import_onnx().helper
        cut = f"{output}_cut" if normalize else output
        ends = _constant(graph, f"{output}_ends", [size])
        starts = _constant(graph, f"{output}_starts", [0])
        axes = _constant(graph, f"{output}_axes", [1])
        graph.node.append(helper.make_node("Slice", [source, starts, ends, axes], [cut], name=cut))
        if normalize:
            node = helper.make_node("LpNormalization", [cut], [output], name=output, axis=1, p=2)
            graph.node.append(node)
        _only_output(graph, output, ["batch", size])

    return edit


def as_tokens(source: str, size: int, output: str) -> Edit:
    """Return an edit that makes vectors [batch, size] the only output, as [batch, 1, size].

    That is the shape of token vectors, of texts of one token each.
    """

    def edit(graph: Any) -> None:
        helper = import_onnx().helper
        shape = _constant(graph, f"{output}_shape", [0, 1, size])  # 0: as it was
        graph.node.append(helper.make_node("Reshape", [source, shape], [output], name=output))
        _only_output(graph, output, ["batch", 1, size])

    return edit


def in_turn(*edits: Edit) -> Edit:
    """Return one edit that does several."""

    def edit(graph: Any) -> None:
        for one in edits:
            one(graph)

    return edit


def _constant(graph: Any, name: str, values: Sequence[int]) -> str:
    onnx = import_onnx()
    tensor = onnx.helper.make_tensor(name, onnx.TensorProto.INT64, [len(values)], list(values))
    graph.initializer.append(tensor)
    return name


def _only_output(graph: Any, name: str, shape: Sequence[int | str]) -> None:
    onnx = import_onnx()
    info = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, list(shape))
    del graph.output[:]
    graph.output.append(info)


def _copy_weights(model: Any, source: Path, folder: Path) -> None:
    """Copy what the model's tensors refer to into one file, and let them refer to that."""
    external = [one for one in _tensors(model) if one.data_location == one.EXTERNAL]
    if not external:
        return
    places: dict[tuple[str, int, int], int] = {}
    with (folder / DATA_FILE).open("wb") as data:
        for tensor in external:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            file = source / entries["location"]
            offset = int(entries.get("offset", 0))
            length = int(entries.get("length", file.stat().st_size - offset))
            key = entries["location"], offset, length
            if key not in places:
                data.write(b"\0" * (-data.tell() % _ALIGNMENT))
                places[key] = data.tell()
                _copy(file, offset, length, data)
            del tensor.external_data[:]
            for name, value in (
                ("location", DATA_FILE),
                ("offset", places[key]),
                ("length", length),
            ):
                tensor.external_data.add(key=name, value=str(value))


def _copy(file: Path, offset: int, length: int, data: BinaryIO) -> None:
    with file.open("rb") as source:
        source.seek(offset)
        while length:
            piece = source.read(min(length, _COPIED_BYTES))
            if not piece:
                raise ArtifactCorrupt(f"{file.name} ends before the weights that the graph reads")
            data.write(piece)
            length -= len(piece)


def _tensors(model: Any) -> Iterator[Any]:
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        yield from _node_tensors(function.node)


def _graph_tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Any) -> Iterator[Any]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                yield from _graph_tensors(attribute.g)
            for graph in attribute.graphs:
                yield from _graph_tensors(graph)
