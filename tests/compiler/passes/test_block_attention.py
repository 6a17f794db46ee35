"""Attention in blocks of queries gives the numbers of the whole, whatever makes the mask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx.parser
import onnx_ir as ir
import pytest
import transformers
from onnx import TensorProto, helper

from poolc.compiler.passes.block_attention import BlockAttentionPass
from poolc.compiler.passes.mask_reach import EVERYTHING, Reach, reach_of
from poolc.compiler.quantize.calibration import open_session
from tests.compiler.traced import traced, traced_jina

WHOLE, ROWS, WINDOW = 48, 16, 8
# Around the edges of the blocks and of what stays whole; the padding of two texts differs.
SHAPES = [(3, 15), (2, 16), (1, 17), (2, 47), (2, 48), (1, 49), (2, 63), (1, 64), (3, 65), (1, 129)]
_ALTERNATING = ["sliding_attention", "full_attention"]
SIZES: dict[str, Any] = {
    "vocab_size": 90,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 160,
    "pad_token_id": 0,
}
DECODER = {**SIZES, "num_key_value_heads": 2, "head_dim": 8}
BIDIRECTIONAL = {"use_bidirectional_attention": True, "layer_types": _ALTERNATING}
T5 = {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 16}


FAMILIES = {
    "modernbert": ("ModernBert", {**SIZES, "local_attention": 8, "layer_types": _ALTERNATING}),
    "qwen2": (
        "Qwen2",
        {**DECODER, "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    ),
    "gemma3": ("Gemma3Text", {**DECODER, **BIDIRECTIONAL, "sliding_window": WINDOW}),
    "t5": ("T5", {"vocab_size": 90, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, **T5}),
}


# Layers by the keys that a query sees, as each family's configuration in transformers says: half of
# ModernBERT's local_attention to each side, the last sliding_window of a decoder.
ALL, CAUSAL = "all before, all after", "all before, 0 after"
REACH = {
    "modernbert": {"4 before, 4 after": 1, ALL: 1},
    "qwen2": {"7 before, 0 after": 1, CAUSAL: 1},
    "gemma3": {"4 before, 4 after": 1, ALL: 1},
    "t5": {ALL: 2},
    "jina-bert": {ALL: 2},
}


@pytest.mark.parametrize("family", [*FAMILIES, "jina-bert"])
def test_blocks_equal_the_whole(family: str, tmp_path: Path) -> None:
    if family == "jina-bert":
        whole = traced_jina()
    else:
        name, settings = FAMILIES[family]
        config = getattr(transformers, f"{name}Config")(**settings)
        model = "T5EncoderModel" if name == "T5" else f"{name}Model"
        whole = traced(getattr(transformers, model), config)
    blocked = whole.clone()
    found = BlockAttentionPass(10_000, WHOLE, ROWS)
    assert found(blocked).modified
    assert (found.record["blocked"], found.record["left"]) == (2, [])
    assert not found.record["whole_masks"]
    reach = {name: one["layers"] for name, one in found.record["layers"].items()}
    assert reach == REACH[family]
    assert "Attention" not in {node.op_type for node in blocked.graph}
    compare(whole, blocked, tmp_path)


WORDS = """
    row = Unsqueeze(input_ids, one)
    column = Unsqueeze(input_ids, two)
    equal = Equal(row, column)
    mask = Unsqueeze(equal, one)
"""
PLACES = """
    size = Shape <start = 1, end = 2> (input_ids)
    length = Squeeze(size)
    places = Range(first, length, step)
    column = Unsqueeze(places, one)
    equal = Equal(places, column)
    mask = Unsqueeze(equal, front)
"""


@pytest.mark.parametrize(("made", "reach"), [(WORDS, EVERYTHING), (PLACES, Reach(0, 0))])
def test_reach_is_of_positions_and_not_of_words(made: str, reach: Reach) -> None:
    text = f"""
        <ir_version: 10, opset_import: ["": 23]>
        masked (int64[batch, seq] input_ids) => (bool[batch, 1, seq, seq] mask)
        <int64[1] one = {{1}}, int64[1] two = {{2}}, int64[2] front = {{0, 1}},
         int64 first = {{0}}, int64 step = {{1}}>
        {{ {made} }}
    """
    graph = ir.from_proto(onnx.parser.parse_model(text)).graph
    assert reach_of(graph, graph.outputs[0]) == reach


def compare(whole: ir.Model, blocked: ir.Model, folder: Path) -> None:
    (folder / "whole").mkdir()
    (folder / "blocked").mkdir()
    sessions = [open_session(whole, folder / "whole"), open_session(blocked, folder / "blocked")]
    for shape in SHAPES:
        feeds = texts(shape)
        left, right = (session.run(None, feeds)[0] for session in sessions)
        # Other keys in a block are other sums: the same numbers within rounding.
        assert np.abs(left - right).max() <= 1e-6 * np.abs(left).max(), shape


def texts(shape: tuple[int, int]) -> dict[str, npt.NDArray[np.int64]]:
    ids = np.random.default_rng(7).integers(5, 90, shape)
    mask = np.ones(shape, np.int64)
    for row in range(1, shape[0]):
        mask[row, shape[1] // (row + 1) :] = 0
    return {"input_ids": ids, "attention_mask": mask}


def test_attention_of_three_dimensions() -> None:
    model = synthetic(q_num_heads=4, kv_num_heads=2)
    assert_blocks(model, left=0, whole_masks=0)


def test_mask_that_is_not_understood_is_made_as_a_whole() -> None:
    model = synthetic(q_num_heads=4, kv_num_heads=2, mask="CumSum")
    assert_blocks(model, left=0, whole_masks=1)


def test_causal_attribute_stays() -> None:
    model = synthetic(q_num_heads=4, kv_num_heads=2, is_causal=1)
    assert_blocks(model, left=1, whole_masks=0)


def assert_blocks(model: ir.Model, *, left: int, whole_masks: int) -> None:
    import onnxruntime

    before = ir.to_proto(model).SerializeToString()
    found = BlockAttentionPass(10_000, WHOLE, ROWS)
    found(model)
    assert (len(found.record["left"]), len(found.record["whole_masks"])) == (left, whole_masks)
    assert found.record["blocked"] == 1 - left
    after = ir.to_proto(model).SerializeToString()
    x = np.random.default_rng(1).standard_normal((2, 70, 32)).astype(np.float32)
    results = [
        onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"]).run(None, {"x": x})
        for graph in (before, after)
    ]
    assert np.abs(results[0][0] - results[1][0]).max() <= 1e-6
    assert model.graph.outputs[0].name == "y"


def synthetic(*, mask: str = "Mul", **attributes: Any) -> ir.Model:
    """y = attention(x, x[..., :16], x[..., 16:], 0.01 mask(position, position))."""
    node = helper.make_node
    pair, second = ("row", "column") if mask == "Mul" else ("product", "axis")
    nodes = [
        node("Split", ["x"], ["k", "v"], axis=-1, num_outputs=2),
        node("Shape", ["x"], ["size"], start=1, end=2),
        node("Squeeze", ["size"], ["seq"]),
        node("Range", ["zero", "seq", "one"], ["places"]),
        node("Unsqueeze", ["places", "axis"], ["row"]),
        node("Identity", ["places"], ["column"]),
        node("Mul", ["row", "column"], ["product"]),
        node(mask, [pair, second], ["made"]),
        node("Cast", ["made"], ["floats"], to=TensorProto.FLOAT),
        node("Mul", ["floats", "hundredth"], ["mask"]),
        node("Attention", ["x", "k", "v", "mask"], ["y"], **attributes),
    ]
    info: Any = helper.make_tensor_value_info
    shape = ["batch", "seq", 32]
    known: dict[str, tuple[Any, Any]] = {
        **{name: (TensorProto.INT64, ["seq"]) for name in ("places", "column")},
        **{name: (TensorProto.INT64, ["seq", "seq"]) for name in ("product", "made")},
        **{name: (TensorProto.FLOAT, ["seq", "seq"]) for name in ("floats", "mask")},
        **{name: (TensorProto.FLOAT, ["batch", "seq", 16]) for name in "kv"},
        "row": (TensorProto.INT64, ["seq", 1]),
    }
    constants = [
        helper.make_tensor("zero", TensorProto.INT64, [], [0]),
        helper.make_tensor("one", TensorProto.INT64, [], [1]),
        helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
        helper.make_tensor("hundredth", TensorProto.FLOAT, [], [1e-3]),
    ]
    graph = helper.make_graph(
        nodes,
        "main",
        [info("x", TensorProto.FLOAT, shape)],
        [info("y", TensorProto.FLOAT, shape)],
        constants,
        value_info=[info(name, *of) for name, of in known.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)
    return ir.from_proto(model)
