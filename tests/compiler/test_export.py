"""The canonical graph: its interface, its operators, and that it holds nothing of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from poolc.compiler.canonical import IR_VERSION
from poolc.compiler.export import OPSET, export
from poolc.errors import CompileError
from poolc.spec import ATTENTION_MASK, INPUT_IDS, POOLED, SENTENCE_EMBEDDING, TOKEN_EMBEDDINGS
from tests.compiler.conftest import CompileHere


@pytest.fixture
def canonical(plain_bert: Path, compile_here: CompileHere) -> Path:
    return compile_here(plain_bert, keep_canonical=True).path / "canonical.onnx"


def shapes(values: Any) -> dict[str, list[Any]]:
    return {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in values
    }


def test_canonical_graph(canonical: Path) -> None:
    model = onnx.load(canonical)
    onnx.checker.check_model(str(canonical), full_check=True)
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": OPSET}
    assert model.ir_version == IR_VERSION
    assert len(model.functions) == 0
    assert {node.domain for node in model.graph.node} == {""}
    assert {"Attention", "Gelu", "LayerNormalization"} <= {n.op_type for n in model.graph.node}
    names = (INPUT_IDS, ATTENTION_MASK, "token_type_ids")
    assert shapes(model.graph.input) == {name: ["batch", "seq"] for name in names}
    assert shapes(model.graph.output) == {
        POOLED: ["batch", 32],
        SENTENCE_EMBEDDING: ["batch", 32],
        TOKEN_EMBEDDINGS: ["batch", "seq", 32],
    }


def test_canonical_graph_names_no_place(canonical: Path) -> None:
    content = canonical.read_bytes()
    for trace in (b"/site-packages/", str(Path.cwd()).encode(), b".py", b"namespace", b"pkg.torch"):
        assert trace not in content
    model = onnx.load(canonical, load_external_data=False)
    assert (model.producer_name, model.producer_version, model.doc_string) == ("poolc", "", "")
    assert all(not node.metadata_props and not node.doc_string for node in model.graph.node)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (4, 64)])
def test_canonical_graph_runs_in_any_shape(canonical: Path, shape: tuple[int, int]) -> None:
    session = onnxruntime.InferenceSession(canonical, providers=["CPUExecutionProvider"])
    ids = torch.randint(5, 100, shape).numpy()
    feeds = {INPUT_IDS: ids, ATTENTION_MASK: ids * 0 + 1, "token_type_ids": ids * 0}
    pooled, unit, tokens = session.run(None, feeds)
    assert (pooled.shape, unit.shape, tokens.shape) == ((shape[0], 32),) * 2 + ((*shape, 32),)


class _Branches(nn.Module):
    """Control flow that depends on the data, which torch cannot trace."""

    input_names = (INPUT_IDS, ATTENTION_MASK)

    output_names: ClassVar = [POOLED]

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return ids.float() if ids.sum().item() > mask.sum().item() else mask.float()


def test_export_refuses_what_cannot_be_traced() -> None:
    model: Any = _Branches()
    with pytest.raises(CompileError, match=r"^torch cannot export this model: ") as caught:
        export(model)
    assert "\n" not in str(caught.value)
