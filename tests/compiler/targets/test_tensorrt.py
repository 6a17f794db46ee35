"""What the TensorRT targets make of exported families: numbers against transformers, on a CPU.

ONNX Runtime's CPU provider runs the very graph that the engine is built from, in fp32 and fp16; it
has no kernels for bf16, of which the types are checked.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from poolc.compiler.comparison import Case
from poolc.compiler.passes.float8_linears import Float8LinearsPass
from poolc.compiler.passes.select_outputs import SelectOutputsPass
from poolc.compiler.quantize.calibration import collect
from poolc.compiler.quantize.float8 import choose_float8
from poolc.compiler.quantize.linears import find_groups
from poolc.compiler.targets.cpu import CpuCompiler
from poolc.compiler.targets.cuda import CudaCompiler
from poolc.compiler.targets.engines import check_engine_options
from poolc.compiler.targets.tensorrt import TensorRTCompiler, TensorRTRtxCompiler, lower_graph
from poolc.errors import CompileError, InvalidOption, MissingDependency
from poolc.runtime.bounds import BOUNDS, FEW_NUMBERS
from poolc.spec import (
    MAIN_SET,
    CompileOptions,
    Precision,
    Target,
    output_sets,
)
from tests.compiler.exported import Exported, exported_beside_reference
from tests.matrix.cells import cells
from tests.matrix.families import FAMILIES

FEW = ("bert/mean", "modernbert/mean", "qwen3/last", "deberta-v2/single-label")
# A trunk of each kind: norms behind and before, Gemm, bias-free products, a language model.
FP8 = (
    *("bert/mean", "modernbert/mean", "nomic-bert/mean", "deberta-v2/mean"),
    *("gpt2/mean", "qwen3/last", "t5/mean"),
)
_ROWS = 6  # texts of a micro-batch
Canonical = Callable[[str], Exported]


def _every_family() -> list[str]:
    possible = {cell.name for cell in cells() if cell.reason is None}
    heads = ("mean", "single-label")
    return [
        f"{family}/{head}"
        for family in FAMILIES
        for head in heads
        if f"{family}/{head}" in possible and f"{family}/{head}" not in FEW
    ]


@pytest.fixture(scope="module")
def canonical(tmp_path_factory: pytest.TempPathFactory) -> Canonical:
    """Export a family with a head, once."""
    made: dict[str, Exported] = {}

    def build(cell: str) -> Exported:
        if cell not in made:
            made[cell] = exported_beside_reference(cell, tmp_path_factory.mktemp("model"))
        return made[cell]

    return build


def lowered(
    found: Exported, precision: Precision, quantize: Callable[[ir.Model], object] | None = None
) -> ir.Model:
    """Return the graph of the main outputs that the engine is built from."""
    spec = found.spec
    model = SelectOutputsPass(output_sets(spec)[MAIN_SET])(found.graph.clone()).model
    rewrites = TensorRTRtxCompiler().untimed().rewrites
    lower_graph(model, rewrites, precision, spec.max_length, quantize)
    return model


def feeds(found: Exported, case: Case, items: list[Any]) -> dict[str, Any]:
    """Return what the runtime feeds: token ids of the reference, padded on the right, int32."""
    encoded = [found.reference.token_ids(case, item) for item in items]
    seq = max(len(ids) for ids, _ in encoded)
    given = {name: np.zeros((len(items), seq), np.int32) for name in found.spec.inputs}
    given["input_ids"].fill(found.spec.pad_token_id)
    for row, (ids, types) in enumerate(encoded):
        given["input_ids"][row, : len(ids)] = ids
        given["attention_mask"][row, : len(ids)] = 1
        if "pooling_mask" in given:
            given["pooling_mask"][row, : len(ids)] = 1
        if "token_type_ids" in given and types is not None:
            given["token_type_ids"][row, : len(ids)] = types
    return given


def lost_by_transformers(found: Exported) -> dict[str, float]:
    """Return how far transformers in fp16 is from itself in fp32, by output, as the gate counts."""
    case = found.reference.cases()[0]
    half: Any = copy.copy(found.reference)
    half.model = copy.deepcopy(half.model).half()
    lost: dict[str, float] = {}
    for row, exact in zip(half.rows(case), found.reference.rows(case), strict=True):
        for name, values in row.items():
            size = max(1.0, float(np.abs(exact[name]).max()))
            error = float(np.abs(values - exact[name]).max()) / size
            lost[name] = max(lost.get(name, 0.0), error)
    return lost


def in_fp64(found: Exported) -> Any:
    """Return the reference with its model in fp64."""
    exact: Any = copy.copy(found.reference)
    exact.model = copy.deepcopy(exact.model).double()
    return exact


def compare(
    found: Exported,
    precision: Precision,
    lost: Mapping[str, float] | None = None,
    reference: Any = None,
) -> None:
    """Compare every text of the parity gate with transformers within the precision's bounds.

    ``lost``: by output, what may be lost where it is more. ``reference``: another than ``found``'s.
    """
    import onnxruntime as ort

    model = lowered(found, precision)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    names = [output.name for output in session.get_outputs()]
    case = found.reference.cases()[0]
    items = sorted(case.items, key=str)
    wanted = (reference or found.reference).rows(Case(case.task, items, case.params))
    bounds = BOUNDS[precision]
    for start in range(0, len(items), _ROWS):
        part = items[start : start + _ROWS]
        given = feeds(found, case, part)
        given = {v.name: given[v.name] for v in session.get_inputs()}
        for name, values in zip(names, session.run(names, given), strict=True):
            for row, text in enumerate(part):
                target = wanted[start + row][name]
                made = values[row][: len(target)] if target.ndim == 2 else values[row]
                error = np.abs(made - target).max() / max(1.0, np.abs(target).max())
                if bounds.limits_error(made.shape[-1]):
                    assert error <= max(bounds.error, (lost or {}).get(name, 0.0)), (name, text)
                if bounds.worst_cosine is not None and made.shape[-1] >= FEW_NUMBERS:
                    a, b = made.astype(np.float64).ravel(), target.astype(np.float64).ravel()
                    assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) >= bounds.worst_cosine


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16])
@pytest.mark.parametrize("cell", FEW)
def test_numbers_are_those_of_transformers(
    cell: str, precision: Precision, canonical: Canonical
) -> None:
    compare(canonical(cell), precision)


@pytest.mark.parametrize(
    "cell",
    [
        "modernbert/mean",
        pytest.param("gemma3/mean", marks=pytest.mark.slow),
        pytest.param("mistral/last", marks=pytest.mark.slow),
    ],
)
def test_no_query_of_windows_sees_nothing(cell: str, canonical: Canonical) -> None:
    """Padding beyond a window would: with infinity for what is masked that is no number."""
    import onnxruntime as ort

    found = canonical(cell)
    model = lowered(found, Precision.FP32)
    attention = [node for node in model.graph if node.op_type == "Attention"]
    masks = {node.inputs[3] for node in attention if len(node.inputs) > 3}
    for mask in masks:
        mask.type = ir.TensorType(ir.DataType.BOOL)
        model.graph.outputs.append(mask)
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    seq = found.spec.max_length
    given = {value.name: np.zeros((2, seq), np.int32) for value in session.get_inputs()}
    for name in given.keys() & {"attention_mask", "pooling_mask"}:
        given[name][0], given[name][1, :3] = 1, 1
    rows = session.run([mask.name for mask in masks], given)
    assert rows and any(not (row.all(axis=-1)).all() for row in rows)
    assert all(row.any(axis=-1).all() for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16])
@pytest.mark.parametrize("cell", _every_family())
def test_numbers_of_every_family(cell: str, precision: Precision, canonical: Canonical) -> None:
    """Logits of some of the random classifiers are beyond the gate's bound in fp16: weights of 11
    bits alone make that of them, computed exactly. transformers in fp16 loses as much. In fp32 they
    are compared with fp64: PyTorch's fp32 changes from process to process, NomicBERT's by more
    than the graph differs from fp64.
    """
    found, lost, reference = canonical(cell), {}, None
    if cell.endswith("/single-label"):
        if precision is Precision.FP16:
            lost = {name: 2 * error for name, error in lost_by_transformers(found).items()}
        else:
            reference = in_fp64(found)
    compare(found, precision, lost, reference)


def with_rounded_weights(found: Exported) -> Any:
    """Return the reference with the matrices of its layers as PyTorch rounds them to E4M3."""
    rounded: Any = copy.deepcopy(found.reference)
    (chain,) = rounded._chains.values()
    for module in chain._modules[0].modules():
        if type(module).__name__ in ("Linear", "Conv1D"):
            weight = module.weight.data
            scale = weight.abs().max() / torch.finfo(torch.float8_e4m3fn).max
            weight.copy_((weight / scale).to(torch.float8_e4m3fn).float() * scale)
    return rounded


def cosines(left: Any, right: Any) -> Any:
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return (left * right).sum(axis=1) / norms


@pytest.mark.slow
@pytest.mark.parametrize("cell", FP8)
def test_numbers_in_fp8(cell: str, canonical: Canonical) -> None:
    """All products in fp8, of which random models lose more than the gate allows: not more than
    five times what transformers loses by weights alone that PyTorch rounded to E4M3. Activations
    are rounded too, and such networks amplify (NomicBERT 3.4 times, the others less than 3).
    """
    import onnxruntime as ort

    found = canonical(cell)
    case = found.reference.cases()[0]
    items = sorted(case.items, key=str)
    given = [feeds(found, case, items[i : i + _ROWS]) for i in range(0, len(items), _ROWS)]
    wide = [{name: ids.astype(np.int64) for name, ids in batch.items()} for batch in given]
    groups = find_groups(found.graph.graph)
    seen = collect(found.graph, groups, wide)
    choices = {group.name: choose_float8(seen[group.name], group.matrix) for group in groups}
    model = lowered(found, Precision.FP8, Float8LinearsPass(choices))
    steps = [node for node in model.graph if node.op_type == "QuantizeLinear"]
    assert len(steps) == len(groups)
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    (output,) = [one.name for one in session.get_outputs() if one.name == "sentence_embedding"]
    names = [value.name for value in session.get_inputs()]
    made = np.concatenate(
        [session.run([output], {name: batch[name] for name in names})[0] for batch in given]
    )
    case = Case(case.task, items, case.params)
    exact, rounded = found.reference.rows(case), with_rounded_weights(found).rows(case)
    wanted, others = (np.stack([row[output] for row in rows]) for rows in (exact, rounded))
    lost = 1 - cosines(made, wanted)
    assert lost.mean() <= 5 * (1 - cosines(others, wanted)).mean()
    assert lost.max() > 1e-4


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.BF16])
def test_the_trunk_is_low_and_sums_and_heads_are_not(
    precision: Precision, canonical: Canonical
) -> None:
    model = lowered(canonical("bert/mean"), precision)
    low = {Precision.FP16: ir.DataType.FLOAT16, Precision.BF16: ir.DataType.BFLOAT16}[precision]
    types = {
        op: {node.inputs[0].dtype for node in model.graph if node.op_type == op and node.inputs[0]}
        for op in ("Attention", "Gelu", "LayerNormalization", "ReduceL2", "ReduceSum")
    }
    full = {ir.DataType.FLOAT}
    assert types["Attention"] == types["Gelu"] == {low}
    assert types["LayerNormalization"] == full
    assert types["ReduceL2"] <= full and types["ReduceSum"] <= full
    assert {value.dtype for value in model.graph.outputs} == full


def test_queries_keys_and_values_are_one_product_and_masks_have_every_row(
    canonical: Canonical,
) -> None:
    model = lowered(canonical("bert/mean"), Precision.FP16)
    nodes = [node for node in model.graph if node.op_type == "Attention"]
    assert len(nodes) == 2  # layers
    masks = {node.inputs[3] for node in nodes}
    (mask,) = masks
    assert mask is not None and mask.dtype == ir.DataType.BOOL and mask.shape is not None
    assert mask.shape[1] == 1 and mask.shape[2] == mask.shape[3]
    assert all(len(value.shape or ()) == 4 for node in nodes for value in node.inputs if value)
    wide = [node for node in model.graph if node.op_type == "Split"]
    assert [len(node.outputs) for node in wide] == [3, 3]
    assert {value.dtype for value in model.graph.inputs} == {ir.DataType.INT32}


def test_causal_attention_has_no_mask(canonical: Canonical) -> None:
    model = lowered(canonical("qwen3/last"), Precision.FP16)
    nodes = [node for node in model.graph if node.op_type == "Attention"]
    assert [len(node.inputs) for node in nodes] == [3, 3]
    assert {node.attributes["is_causal"].value for node in nodes} == {1}


def test_a_graph_that_hides_its_hidden_states_is_refused_in_half(canonical: Canonical) -> None:
    found = canonical("bert/mean")
    model = SelectOutputsPass(output_sets(found.spec)[MAIN_SET])(found.graph.clone()).model
    for node in model.graph:
        for value in node.outputs:
            if value.name == "token_embeddings":
                value.name = "last"
    with pytest.raises(CompileError, match="needs the model's last hidden states"):
        lower_graph(model, (), Precision.FP16, found.spec.max_length)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"profiles": "batch=2"}, "profiles is 'batch=2'"),
        ({"optimization_level": 6}, "optimization_level is 6; allowed: 0 to 5"),
        ({"workspace": "lots"}, "workspace is 'lots'; allowed: bytes"),
        ({"hardware_compatibility": "any"}, "hardware_compatibility is 'any'; allowed: none"),
        ({"compute_capability": "8.9"}, "compute_capability is for target tensorrt-rtx"),
    ],
)
def test_engine_options_that_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidOption, match=said):
        check_engine_options(Target.TENSORRT, CompileOptions(**options))


def test_engine_options_of_other_targets() -> None:
    asked = CompileOptions(version_compatible=True)
    with pytest.raises(InvalidOption, match="are for target tensorrt; tensorrt-rtx has"):
        check_engine_options(Target.TENSORRT_RTX, asked)
    for target in (CpuCompiler(), CudaCompiler()):
        with pytest.raises(InvalidOption, match="profiles is for the targets tensorrt and"):
            target.check(CompileOptions(profiles="batch=1,seq=8"))


def test_precisions_that_tensorrt_does_not_have() -> None:
    with pytest.raises(InvalidOption, match="precision is int8; target tensorrt has: fp32, fp16"):
        TensorRTCompiler().check(CompileOptions(target=Target.TENSORRT, precision=Precision.INT8))
    with pytest.raises(InvalidOption, match="calibrate is for precisions that quantise"):
        TensorRTCompiler().check(CompileOptions(target=Target.TENSORRT, calibrate="texts.txt"))


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in ("tensorrt", "tensorrt_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependency, match=r"target tensorrt needs .*poolc\[tensorrt\]"):
        TensorRTCompiler().check(CompileOptions(target=Target.TENSORRT))
