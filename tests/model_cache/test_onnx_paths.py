"""External-data locations of ONNX graphs, wherever the schema allows a tensor."""

from __future__ import annotations

import io
import tracemalloc
from contextlib import suppress
from pathlib import Path

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import (
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    SparseTensorProto,
    TensorProto,
    helper,
)

import poolc
from poolc.errors import ArtifactCorrupt
from poolc.model_cache.onnx_paths import (
    ExternalTensor,
    external_initializers,
    external_locations,
)

from .conftest import external_tensor, graph_bytes


def locations(data: bytes) -> set[str]:
    return set(external_locations(io.BytesIO(data), len(data)))


def initializers(data: bytes) -> list[ExternalTensor]:
    return list(external_initializers(io.BytesIO(data), len(data)))


def sparse(location: str) -> SparseTensorProto:
    return SparseTensorProto(
        values=external_tensor(f"{location}.values"), indices=external_tensor(f"{location}.indices")
    )


def everywhere() -> ModelProto:
    """A model with an external tensor in every place the schema has for one."""
    branch = GraphProto(name="branch", initializer=[external_tensor("subgraph")])
    node = NodeProto(op_type="Anything")
    node.attribute.add(name="t", t=external_tensor("attribute"))
    node.attribute.add(name="ts", tensors=[external_tensor("list-1"), external_tensor("list-2")])
    node.attribute.add(name="g", g=branch)
    node.attribute.add(
        name="gs", graphs=[GraphProto(name="inner", initializer=[external_tensor("subgraphs")])]
    )
    node.attribute.add(name="s", sparse_tensor=sparse("sparse-attribute"))
    node.attribute.add(name="ss", sparse_tensors=[sparse("sparse-list")])
    model = ModelProto(ir_version=10, producer_name="test")
    model.graph.node.append(node)
    model.graph.initializer.append(external_tensor("initializer"))
    model.graph.sparse_initializer.append(sparse("sparse"))
    constant = NodeProto(op_type="Constant")
    constant.attribute.add(name="value", t=external_tensor("function"))
    function = FunctionProto(name="f", domain="d", node=[constant])
    function.attribute_proto.add(name="default", t=external_tensor("function-default"))
    model.functions.append(function)
    training = model.training_info.add()
    training.initialization.initializer.append(external_tensor("training-1"))
    training.algorithm.initializer.append(external_tensor("training-2"))
    return model


def test_locations_of_every_place() -> None:
    sparse_names = {"sparse", "sparse-attribute", "sparse-list"}
    assert locations(everywhere().SerializeToString()) == {
        *("initializer", "attribute", "list-1", "list-2", "subgraph", "subgraphs"),
        *("function", "function-default", "training-1", "training-2"),
        *(f"{name}.{part}" for name in sparse_names for part in ("values", "indices")),
    }


def test_locations_of_a_graph_with_inline_weights_are_none() -> None:
    model = helper.make_model(
        helper.make_graph(
            [], "g", [], [], [helper.make_tensor("w", TensorProto.FLOAT, [2], [1, 2])]
        )
    )
    assert locations(model.SerializeToString()) == set()


def test_locations_of_repeated_keys_are_all_there() -> None:
    tensor = external_tensor("first")
    tensor.external_data.add(key="location", value="second")
    model = ModelProto()
    model.graph.initializer.append(tensor)
    assert locations(model.SerializeToString()) == {"first", "second"}


def test_locations_when_the_value_comes_before_the_key() -> None:
    entry = b"\x12\x04evil" + b"\x0a\x08location"
    tensor = b"\x6a" + bytes([len(entry)]) + entry
    graph = b"\x2a" + bytes([len(tensor)]) + tensor
    assert locations(b"\x3a" + bytes([len(graph)]) + graph) == {"evil"}


def test_locations_across_the_window() -> None:
    model = ModelProto(producer_name="p" * ((1 << 16) - 20))
    model.graph.initializer.append(external_tensor("far"))
    model.graph.doc_string = "d" * 200_000
    model.graph.initializer.append(external_tensor("farther"))
    assert locations(model.SerializeToString()) == {"far", "farther"}


def test_walk_skips_weights_without_reading_them() -> None:
    model = ModelProto()
    model.graph.initializer.add(name="w", raw_data=bytes(30_000_000))
    model.graph.initializer.append(external_tensor("after"))
    file = io.BytesIO(model.SerializeToString())
    size = len(file.getbuffer())
    tracemalloc.start()
    found = list(external_locations(file, size))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == ["after"]
    assert peak < 1_000_000


@pytest.mark.parametrize(
    "data",
    [
        b"\x3a",  # a length that is missing
        b"\x3a\x7f",  # longer than the file
        b"\xff" * 11,  # a number without end
        b"\x00\x00",  # field number 0
        b"\x0b\x0c",  # a group
        b"\x3a\x02\x2a\x05",  # a child longer than its parent
        b"\x0d\x00",  # 4 bytes that are 1
    ],
)
def test_walk_malformed_is_corrupt(data: bytes) -> None:
    with pytest.raises(ArtifactCorrupt):
        locations(data)


def nested(tag: int, inner: bytes) -> bytes:
    """One length-delimited field with its length as a varint of two bytes."""
    return bytes([tag, len(inner) & 0x7F | 0x80, len(inner) >> 7]) + inner


def test_walk_deep_nesting_is_corrupt() -> None:
    graph = b""
    for _ in range(40):  # graph.node.attribute.g, which is three levels
        graph = nested(0x0A, nested(0x2A, nested(0x32, graph)))
    with pytest.raises(ArtifactCorrupt, match="too deeply"):
        locations(nested(0x3A, graph))


def test_walk_endless_location_is_corrupt() -> None:
    with pytest.raises(ArtifactCorrupt, match="5000 bytes"):
        locations(graph_bytes("x" * 5000))


def test_walk_location_outside_utf8_is_corrupt() -> None:
    data = graph_bytes("abcd").replace(b"abcd", b"\xff\xfe\xfd\xfc")
    with pytest.raises(ArtifactCorrupt, match="UTF-8"):
        locations(data)


def test_walk_every_truncation_is_corrupt_or_finds_less() -> None:
    data = everywhere().SerializeToString()
    whole = locations(data)
    for end in range(len(data)):
        try:
            assert locations(data[:end]) < whole
        except ArtifactCorrupt:
            continue


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_walk_any_bytes_raise_only_corrupt(data: bytes) -> None:
    with suppress(ArtifactCorrupt):
        locations(data)


# Initializers: read as the onnx package does.


def test_initializers_of_a_compiled_graph(tiny_embedder_source: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    poolc.compile(
        tiny_embedder_source, target="cuda", precision="fp16", output=made,
        on_event=lambda event: None,
    )  # fmt: skip
    path = made / "model.onnx"
    expected = []
    for tensor in onnx.load(path, load_external_data=False).graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            lies = {entry.key: entry.value for entry in tensor.external_data}
            where = lies["location"], int(lies["offset"]), int(lies["length"])
            shape = tuple(tensor.dims)
            expected.append(ExternalTensor(tensor.name, tensor.data_type, shape, *where))
    assert initializers(path.read_bytes()) == expected
    assert len({one.shape for one in expected}) > 3


def test_initializers_are_those_of_the_main_graph_that_lie_elsewhere() -> None:
    model = everywhere()
    model.graph.initializer.append(helper.make_tensor("here", TensorProto.FLOAT, [2], [1, 2]))
    endless = external_tensor("endless")
    del endless.external_data[-1]  # its length
    scalar = external_tensor("scalar", "s")
    scalar.ClearField("dims")
    model.graph.initializer.extend([endless, scalar])
    assert initializers(model.SerializeToString()) == [
        ExternalTensor("weight", TensorProto.FLOAT, (8,), "initializer", 0, 32),
        ExternalTensor("s", TensorProto.FLOAT, (), "scalar", 0, 32),
    ]


def test_initializer_of_packed_sizes() -> None:
    """As proto3 writes them; the onnx package writes one field each."""
    packed = b"\x0a\x03\x02\xac\x02"  # 2 and 300
    entries = b"".join(
        b"\x6a" + bytes([len(entry)]) + entry
        for entry in (b"\x0a\x08location\x12\x01f", b"\x0a\x06length\x12\x0212")
    )
    tensor = packed + b"\x10\x01" + entries
    graph = b"\x2a" + bytes([len(tensor)]) + tensor
    data = b"\x3a" + bytes([len(graph)]) + graph
    assert TensorProto.FromString(tensor).dims == [2, 300]
    assert initializers(data) == [ExternalTensor("", 1, (2, 300), "f", 0, 12)]


def test_initializer_whose_offset_is_no_number() -> None:
    tensor = external_tensor("file")
    tensor.external_data.add(key="offset", value="far")
    model = ModelProto()
    model.graph.initializer.append(tensor)
    with pytest.raises(ArtifactCorrupt, match="tensor 'weight' does not say where its bytes lie"):
        initializers(model.SerializeToString())


def test_initializer_of_endless_sizes() -> None:
    tensor = external_tensor("file")
    tensor.dims.extend([1] * 100)
    model = ModelProto()
    model.graph.initializer.append(tensor)
    with pytest.raises(ArtifactCorrupt, match="more than 64 dimensions"):
        initializers(model.SerializeToString())


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_initializers_of_any_bytes_raise_only_corrupt(data: bytes) -> None:
    with suppress(ArtifactCorrupt):
        initializers(data)
