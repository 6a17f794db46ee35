"""What target cuda makes of exported families: layouts, numbers and precisions, without a GPU.

Packed graphs run in NumPy (``vendor_ops.py``), padded ones by ONNX Runtime's CPU provider, which
has their operators in fp16 too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from poolc.compiler.passes.select_outputs import SelectOutputsPass
from poolc.compiler.targets.base import Lowerable
from poolc.compiler.targets.cuda import CudaCompiler
from poolc.errors import CompileError, InvalidOption
from poolc.runtime.bounds import BOUNDS
from poolc.runtime.packing import packing
from poolc.spec import (
    MAIN_SET,
    TOKEN_OFFSET,
    CompileOptions,
    Kind,
    ModelSpec,
    Precision,
    Target,
    output_sets,
)
from tests.compiler.exported import exported
from tests.compiler.vendor_ops import evaluator

PACKED = ("bert/mean", "xlm-roberta/cls", "distilbert/mean", "nomic-bert/mean")
PADDED = {
    "qwen3/last": "other operators than attention mix tokens",  # norms of heads
    "llama/last": "heads share keys",
    "t5/mean": "attention is causal, windowed or biased by position",
    "deberta-v2/mean": "its attention is written out",
    "qwen2-bidirectional/mean": "heads share keys",
}
LENGTHS = np.array([17, 5, 9])
Canonical = Callable[[str], tuple[ir.Model, ModelSpec]]


@pytest.fixture(scope="module")
def canonical(tmp_path_factory: pytest.TempPathFactory) -> Canonical:
    """Export a family with a head, once."""
    made: dict[str, tuple[ir.Model, ModelSpec]] = {}

    def build(cell: str) -> tuple[ir.Model, ModelSpec]:
        if cell not in made:
            made[cell] = exported(cell, tmp_path_factory.mktemp("model"))
        return made[cell]

    return build


def lowered(
    graph: ir.Model, spec: ModelSpec, folder: Path, precision: Precision
) -> tuple[ir.Model, str]:
    """Lower for cuda; return the main graph, read back from its file, and its layout."""
    target = CudaCompiler()
    source = Lowerable({"": graph}, precision=precision)
    found = target.lower(source, spec, folder, target.untimed())
    model = ir.from_proto(onnx.load(folder / "model.onnx"))  # with its weights
    return model, found.tuning["layout"][MAIN_SET]


def feeds(spec: ModelSpec, model: ir.Model) -> dict[str, Any]:
    """Three texts padded on the right, and where their tokens are for a packed graph."""
    seq = int(LENGTHS.max())
    mask = (np.arange(seq) < LENGTHS[:, None]).astype(np.int64)
    ids = np.random.default_rng(1).integers(5, spec.vocab_size, mask.shape)
    given = {
        "input_ids": np.where(mask, ids, spec.pad_token_id),
        "attention_mask": mask,
        "token_type_ids": np.zeros_like(mask),
        **packing(LENGTHS, seq),
    }
    return {str(value.name): given[str(value.name)] for value in model.graph.inputs}


def run(model: ir.Model, spec: ModelSpec) -> list[Any]:
    """Run a graph for cuda, or a canonical one, on this machine."""
    import onnxruntime as ort

    given = feeds(spec, model)
    if TOKEN_OFFSET in given:
        return list(evaluator(ir.to_proto(model)).run(None, given))
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    return list(session.run(None, given))


def plain(graph: ir.Model, spec: ModelSpec) -> ir.Model:
    """Return the canonical graph of the main outputs."""
    return SelectOutputsPass(output_sets(spec)[MAIN_SET])(graph.clone()).model


def worst_cosine(found: list[Any], wanted: list[Any]) -> float:
    worst = 1.0
    for one, other in zip(found, wanted, strict=True):
        a, b = one.astype(np.float64), other.astype(np.float64)
        norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
        worst = min(worst, float(((a * b).sum(axis=-1) / norms).min()))
    return worst


@pytest.mark.parametrize("cell", PACKED)
def test_encoders_are_packed_and_answer_alike(
    cell: str, canonical: Canonical, tmp_path: Path
) -> None:
    graph, spec = canonical(cell)
    model, layout = lowered(graph, spec, tmp_path, Precision.FP32)
    assert layout == "packed"
    assert not any(node.op_type == "Attention" for node in model.graph)
    for one, other in zip(run(model, spec), run(plain(graph, spec), spec), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=3e-6 * max(1.0, np.abs(other).max()))


@pytest.mark.parametrize("cell", PADDED)
def test_others_stay_padded_and_say_why(cell: str, canonical: Canonical, tmp_path: Path) -> None:
    graph, spec = canonical(cell)
    model, layout = lowered(graph, spec, tmp_path, Precision.FP32)
    assert layout == f"padded: {PADDED[cell]}"
    assert TOKEN_OFFSET not in {value.name for value in model.graph.inputs}


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.BF16])
@pytest.mark.parametrize("cell", [*PACKED, *PADDED])
def test_half_precision_is_near_fp32(
    cell: str, precision: Precision, canonical: Canonical, tmp_path: Path
) -> None:
    graph, spec = canonical(cell)
    model, layout = lowered(graph, spec, tmp_path, precision)
    assert {value.dtype for value in model.graph.outputs} == {ir.DataType.FLOAT}
    low = {Precision.FP16: ir.DataType.FLOAT16, Precision.BF16: ir.DataType.BFLOAT16}[precision]
    # Of DeBERTa's positions, which are no tokens, the products stay in fp32.
    positions = {ir.DataType.FLOAT} if cell.startswith("deberta") else set()
    assert products(model) == {low, *positions}
    if precision is Precision.BF16 and layout != "packed":
        return  # ONNX Runtime has these operators for CUDA only
    bound = BOUNDS[precision].worst_cosine
    assert bound is not None
    assert worst_cosine(run(model, spec), run(plain(graph, spec), spec)) >= bound


def products(model: ir.Model) -> set[ir.DataType | None]:
    """Return the types of the constant matrices that tokens are multiplied with."""
    nodes = [node for node in model.graph if node.op_type == "MatMul"]
    matrices = [node.inputs[1] for node in nodes if node.inputs[1] is not None]
    return {matrix.dtype for matrix in matrices if matrix.const_value is not None}


def test_weights_are_stored_once_and_in_the_precision_asked_for(
    canonical: Canonical, tmp_path: Path
) -> None:
    graph, spec = canonical("bert/mean")
    sizes = {}
    for precision in (Precision.FP32, Precision.FP16):
        folder = tmp_path / precision.value
        folder.mkdir()
        lowered(graph, spec, folder, precision)
        sizes[precision] = (folder / "model.onnx.data").stat().st_size
    # Segments start at pages, so that small models are not halved to the byte.
    assert sizes[Precision.FP16] < 0.75 * sizes[Precision.FP32]


def test_lowering_leaves_the_canonical_graph_alone(canonical: Canonical, tmp_path: Path) -> None:
    graph, spec = canonical("bert/mean")
    before = run(plain(graph, spec), spec)
    lowered(graph, spec, tmp_path, Precision.FP16)
    for one, other in zip(run(plain(graph, spec), spec), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_same_model_gives_the_same_bytes(canonical: Canonical, tmp_path: Path) -> None:
    graph, spec = canonical("nomic-bert/mean")
    contents: list[Mapping[str, bytes]] = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        lowered(graph, spec, folder, Precision.FP16)
        contents.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert contents[0] == contents[1]


def test_causal_masks_become_an_attribute_where_no_window_limits_them(
    canonical: Canonical, tmp_path: Path
) -> None:
    def causal(cell: str) -> list[bool]:
        graph, spec = canonical(cell)
        folder = tmp_path / cell.partition("/")[0]
        folder.mkdir()
        model, _ = lowered(graph, spec, folder, Precision.FP32)
        nodes = [node for node in model.graph if node.op_type == "Attention"]
        return [len(node.inputs) == 3 and node.attributes["is_causal"].value == 1 for node in nodes]

    assert causal("llama/last") == [True, True]
    assert causal("mistral/last") == [False, False]  # a window of 8 tokens
    assert causal("qwen2-bidirectional/mean") == [False, False]


def test_decoders_answer_alike_without_their_masks(canonical: Canonical, tmp_path: Path) -> None:
    graph, spec = canonical("llama/last")
    model, _ = lowered(graph, spec, tmp_path, Precision.FP32)
    assert [node.op_type for node in model.graph].count("SkipSimplifiedLayerNormalization") == 4
    for one, other in zip(run(model, spec), run(plain(graph, spec), spec), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=3e-6 * max(1.0, np.abs(other).max()))


def test_a_last_token_is_searched_among_floats(canonical: Canonical, tmp_path: Path) -> None:
    """The library's ArgMax of integers has no kernel for CUDA: the CPU would run it."""
    graph, spec = canonical("qwen3/single-label")
    model, _ = lowered(graph, spec, tmp_path, Precision.FP32)
    searches = [node for node in model.graph if node.op_type == "ArgMax"]
    assert [node.inputs[0].dtype for node in searches if node.inputs[0]] == [ir.DataType.FLOAT]
    for one, other in zip(run(model, spec), run(plain(graph, spec), spec), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=3e-6 * max(1.0, np.abs(other).max()))


def test_multi_vector_models_stay_padded(canonical: Canonical, tmp_path: Path) -> None:
    """Queries are expanded by tokens that have vectors and are not attended to."""
    graph, spec = canonical("bert/colbert")
    assert spec.kind is Kind.MULTI_VECTOR
    said = "padded: tokens that are not attended to have vectors too"
    assert lowered(graph, spec, tmp_path, Precision.FP32)[1] == said


def test_a_graph_that_hides_its_hidden_states_is_refused_in_half(
    canonical: Canonical, tmp_path: Path
) -> None:
    graph, spec = canonical("bert/mean")
    copy = plain(graph, spec)
    for node in copy.graph:
        for value in node.outputs:
            if value.name == "token_embeddings":
                value.name = "last"
    with pytest.raises(CompileError, match="needs the model's last hidden states"):
        lowered(copy, spec, tmp_path, Precision.FP16)


def test_options_that_cuda_does_not_have() -> None:
    target = CudaCompiler()
    target.check(CompileOptions(target=Target.CUDA, precision=Precision.BF16))
    with pytest.raises(InvalidOption, match="precision is int8; target cuda has: fp32, fp16, bf16"):
        target.check(CompileOptions(target=Target.CUDA, precision=Precision.INT8))
    with pytest.raises(InvalidOption, match="calibrate is for precisions that quantise"):
        target.check(CompileOptions(target=Target.CUDA, calibrate="texts.txt"))
