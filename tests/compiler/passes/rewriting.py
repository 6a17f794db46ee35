"""Graphs before and after a rewrite, run by ONNX Runtime on the same inputs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from poolc.compiler.canonical import IR_VERSION
from poolc.compiler.quantize.calibration import open_session

RANDOM = np.random.default_rng(3)


def graph(text: str, arrays: Mapping[str, Any] | None = None) -> ir.Model:
    """Parse ONNX text; ``arrays`` become its constants. Shapes are inferred."""
    import onnx

    model = onnx.parser.parse_model(f'<ir_version: {IR_VERSION}, opset_import: ["": 23]>\n{text}')
    for name, array in (arrays or {}).items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    return ir.from_proto(inferred)


def operators(model: ir.Model) -> list[str]:
    """Return the operators of a graph in order."""
    return [node.op_type for node in model.graph]


def outputs(model: ir.Model, feeds: Mapping[str, Any], folder: Path) -> list[Any]:
    """Run a graph as the runtime does."""
    found: list[Any] = open_session(model, folder).run(None, dict(feeds))
    return found


def same(before: ir.Model, after: ir.Model, feeds: Mapping[str, Any], folder: Path) -> None:
    """Check that two graphs answer alike, within rounding, under the same names."""
    assert [v.name for v in before.graph.outputs] == [v.name for v in after.graph.outputs]
    for one, other in zip(
        outputs(before, feeds, folder), outputs(after, feeds, folder), strict=True
    ):
        scale = max(1.0, float(np.abs(one).max()))
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-6 * scale)
