"""All rewrites on exported models: alone and together they answer as the untouched graph does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from poolc.api import make_options
from poolc.compiler.comparison import Subject
from poolc.compiler.events import Progress
from poolc.compiler.frontends.pytorch import PytorchFrontend
from poolc.compiler.passes.pooled_rows import PooledRowsPass
from poolc.compiler.passes.select_outputs import SelectOutputsPass
from poolc.compiler.tuning.candidates import NAMES, apply
from poolc.spec import MAIN_SET, output_sets
from tests.compiler.passes.rewriting import operators, outputs
from tests.matrix.families import FAMILIES
from tests.matrix.heads import HEADS

COMMON = {"pack_linears", "attention_mask", "attention_layout"}
DECODER = {"rms_norm", "rotary", "grouped_heads", "pooled_rows"}
# What is found in each kind of trunk, and pooled by its head.
CELLS = {
    "bert/cls": COMMON | {"pooled_rows", "float_mask", "bias_gelu", "gemm"},
    "modernbert/mean": (COMMON | {"rotary", "float_mask"}) - {"pack_linears"},
    "qwen3/last": COMMON | DECODER | {"float_mask"},
}
# Reached with Qwen3's random weights by fused norms and rotations; 5e-7 by the others.
ROUNDING = 2e-6
SHAPES = ((3, 17), (2, 40), (1, 1))
Main = Callable[[str], ir.Model]


@pytest.fixture(scope="module")
def main(tmp_path_factory: pytest.TempPathFactory) -> Main:
    """Export the main outputs of a family with a head, once."""
    made: dict[str, ir.Model] = {}

    def build(cell: str) -> ir.Model:
        if cell not in made:
            family, head = cell.split("/")
            folder = tmp_path_factory.mktemp("model")
            HEADS[head].build(FAMILIES[family], folder)
            frontend, progress = PytorchFrontend(), Progress(lambda event: None)
            options = make_options()
            recognized, words = frontend.recognize(folder, folder, options, progress)
            subject = Subject(folder, recognized, words, options)
            graph = frontend.graphs(subject, progress)[""]
            names = output_sets(recognized.spec)[MAIN_SET]
            made[cell] = SelectOutputsPass(names)(graph).model
        return made[cell].clone()

    return build


def feeds(model: ir.Model, shape: tuple[int, int]) -> dict[str, Any]:
    made = {str(value.name): np.zeros(shape, np.int64) for value in model.graph.inputs}
    made["input_ids"][:] = np.random.default_rng(1).integers(5, 200, shape)
    made["attention_mask"][:] = 1
    if shape[0] > 1:  # padded on the right, as the runtime pads
        made["attention_mask"][-1, shape[1] // 2 :] = 0
    return made


def rewritten(model: ir.Model, names: Sequence[str]) -> set[str]:
    return apply(model, names, before_int8=True) | apply(model, names, before_int8=False)


@pytest.mark.parametrize("cell", CELLS)
def test_rewrites_answer_alike(cell: str, main: Main, tmp_path: Path) -> None:
    before = main(cell)
    fed = [feeds(before, shape) for shape in SHAPES]
    exact = [outputs(before, one, tmp_path) for one in fed]
    found: set[str] = set()
    for names in [*([name] for name in NAMES), ["attention_layout", "pooled_rows"], NAMES]:
        after = main(cell)
        applied = rewritten(after, names)
        found |= applied
        for one, wanted in zip(fed, exact, strict=True) if applied else ():
            for made, target in zip(outputs(after, one, tmp_path), wanted, strict=True):
                scale = max(1.0, float(np.abs(target).max()))
                np.testing.assert_allclose(made, target, rtol=0, atol=ROUNDING * scale)
    assert found == CELLS[cell]


def test_all_of_a_decoders_parts_are_fused(main: Main) -> None:
    model = main("qwen3/last")
    rewritten(model, ("rms_norm", "rotary", "grouped_heads", "attention_layout"))
    left = operators(model)
    assert not {"Neg", "Reciprocal"} & {*left}
    assert left.count("RMSNormalization") == 9  # two a layer, of queries and keys, at the end
    assert left.count("RotaryEmbedding") == 4


def test_pooled_rows_compute_one_token_behind_the_last_attention(main: Main) -> None:
    model = main("bert/cls")
    rewritten(model, ("attention_layout", "pooled_rows"))
    shapes = [node.outputs[0].shape for node in model.graph if node.op_type == "Gelu"]
    assert [shape.dims[1] for shape in shapes if shape is not None][-1] == 1


def test_pooled_rows_need_a_pooled_token(main: Main) -> None:
    assert not PooledRowsPass()(main("modernbert/mean")).modified
