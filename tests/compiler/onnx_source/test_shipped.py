"""Shipped graphs as files, written by torch, onnx and ONNX Runtime: what is read and refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from onnxruntime.quantization import QuantFormat, quantize_dynamic
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from onnxruntime.transformers import float16
from sentence_transformers import SentenceTransformer

from poolc import api
from poolc.errors import CorruptWeights, UnsupportedModel
from poolc.model_cache.store import Store
from poolc.runtime.engine import Engine
from tests.compiler.conftest import CompileHere
from tests.compiler.folders import TEXTS, classifier, edit_json, encoder
from tests.compiler.onnx_source.shipping import GRAPH, save_outside, ship

OR_WEIGHTS = "or compile the model's weights, without --from-onnx"


def expected(folder: Path, **options: Any) -> Any:
    return SentenceTransformer(str(folder), device="cpu", **options).encode(TEXTS)


# Weights outside the graph.


@pytest.mark.parametrize("location", ["model.onnx_data", "model.onnx.data", None])
def test_weights_outside_the_graph(
    location: str | None, copied: Path, compile_here: CompileHere, store: Store
) -> None:
    files = save_outside(copied, location)
    assert len(files) == 1 if location else len(files) > 9
    artifact = compile_here(copied, from_onnx=True)
    found = Engine(artifact).embed(TEXTS, truncate=True)
    assert np.abs(found - expected(copied)).max() < 1e-5
    assert files | {GRAPH} <= set(artifact.manifest.source.files)
    # They are part of what the model is: with other weights it is another one.
    options = api.make_options(from_onnx=True)
    assert api.lookup(str(copied), options, store) == artifact.path
    changed = copied / max(files)
    changed.write_bytes(bytes(reversed(changed.read_bytes())))
    assert api.lookup(str(copied), options, store) is None


def test_weights_that_are_links(copied: Path, compile_here: CompileHere) -> None:
    """As in the hub's cache, and in the mirror that overrides are written into."""
    save_outside(copied, "model.onnx_data")
    stored = copied / "onnx" / "model.onnx_data"
    stored.rename(copied.parent / "blob")
    stored.symlink_to(copied.parent / "blob")
    artifact = compile_here(copied, from_onnx=True)
    assert np.abs(Engine(artifact).embed(TEXTS, truncate=True) - expected(copied)).max() < 1e-5


def test_weights_elsewhere_are_refused(copied: Path, compile_here: CompileHere) -> None:
    save_outside(copied, "weights.bin")
    (copied / "onnx" / "weights.bin").rename(copied / "weights.bin")
    model = onnx.load(copied / GRAPH, load_external_data=False)
    for weight in model.graph.initializer:
        next(e for e in weight.external_data if e.key == "location").value = "../weights.bin"
    onnx.save(model, copied / GRAPH)
    message = (
        r"onnx/model\.onnx keeps weights in '\.\./weights\.bin'.*save it with another location"
    )
    with pytest.raises(UnsupportedModel, match=message):
        compile_here(copied, from_onnx=True)


@pytest.mark.parametrize("missing", [True, False])
def test_weights_that_cannot_be_read(
    missing: bool, copied: Path, compile_here: CompileHere
) -> None:
    save_outside(copied, "weights.bin")
    weights = copied / "onnx" / "weights.bin"
    weights.unlink() if missing else weights.write_bytes(b"\0" * 64)
    message = (
        r"onnx/model\.onnx keeps weights in weights\.bin, which is missing beside it: download"
        if missing
        else r"ONNX Runtime cannot load onnx/model\.onnx"
    )
    with pytest.raises(CorruptWeights, match=message):
        compile_here(copied, from_onnx=True)


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n"])
def test_file_that_is_no_graph(content: bytes, copied: Path, compile_here: CompileHere) -> None:
    (copied / GRAPH).write_bytes(content)
    with pytest.raises((CorruptWeights, UnsupportedModel), match=r"onnx/model\.onnx"):
        compile_here(copied, from_onnx=True)


# fp16.


@pytest.mark.parametrize("keep_io_types", [False, True])
def test_half_precision(keep_io_types: bool, copied: Path, compile_here: CompileHere) -> None:
    """Equals the model with its weights rounded to fp16, computed in fp32."""
    model = onnx.load(copied / GRAPH)
    half = float16.convert_float_to_float16(model, keep_io_types=keep_io_types)
    onnx.save(half, copied / GRAPH)
    artifact = compile_here(copied, from_onnx=True)
    reference = SentenceTransformer(str(copied), device="cpu").half().float()
    for module in reference.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = float(np.float16(1e-7))  # the least number that the converter writes
    wanted = reference.encode(TEXTS)
    found = Engine(artifact).embed(TEXTS, truncate=True)
    assert np.abs(found - wanted).max() < 5e-5  # the converter rounds scalars of the formulas too
    assert np.abs(found - expected(copied)).max() > 2e-4
    assert "onnx/model.onnx is in fp16" in artifact.report()["warnings"][0]
    graph = onnx.load(artifact.path / "model.onnx").graph
    assert TensorProto.FLOAT16 not in {weight.data_type for weight in graph.initializer}


def test_half_precision_that_overflows(copied: Path, compile_here: CompileHere) -> None:
    model = onnx.load(copied / GRAPH)
    gain = next(w for w in model.graph.initializer if w.name.endswith("1.output.LayerNorm.weight"))
    high = np.full(tuple(gain.dims), 6e4, np.float32)
    gain.CopyFrom(onnx.numpy_helper.from_array(high, gain.name))
    half = float16.convert_float_to_float16(model, max_finite_val=65504)
    onnx.save(half, copied / GRAPH)
    with pytest.raises(UnsupportedModel, match=f"in fp16 otherwise than in fp32.*{OR_WEIGHTS}"):
        compile_here(copied, from_onnx=True)


# Quantised.


def dynamic(path: Path, nodes: list[str] | None = None) -> None:
    quantize_dynamic(path, path, op_types_to_quantize=["MatMul"], nodes_to_quantize=nodes)


def dynamic_fused(path: Path) -> None:
    """As ONNX Runtime writes a quantised graph that it has optimised."""
    dynamic(path, [n.name for n in onnx.load(path).graph.node if "output/dense/MatMul" in n.name])
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 4
    onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])


def blocks(path: Path, form: QuantFormat = QuantFormat.QOperator) -> None:
    quantizer = MatMulNBitsQuantizer(onnx.load(path), block_size=16, quant_format=form)
    quantizer.process()
    quantizer.model.save_model_to_file(str(path))


@pytest.mark.parametrize(
    ("write", "op"),
    [
        (dynamic, "DynamicQuantizeLinear"),
        (dynamic_fused, "DynamicQuantizeMatMul"),
        (blocks, "MatMulNBits"),
        (partial(blocks, form=QuantFormat.QDQ), "DequantizeLinear"),
    ],
)
def test_quantised_graphs_are_refused(
    write: Callable[[Path], None], op: str, copied: Path, compile_here: CompileHere
) -> None:
    write(copied / GRAPH)
    message = rf"onnx/model\.onnx is quantised \(it has {op}\).*give the unquantised export"
    with pytest.raises(UnsupportedModel, match=message):
        compile_here(copied, from_onnx=True)


def test_variants_are_not_taken(copied: Path, compile_here: CompileHere) -> None:
    (copied / GRAPH).rename(copied / "onnx" / "model_quantized.onnx")
    with pytest.raises(UnsupportedModel, match=r"only onnx/model_quantized\.onnx.*--from-onnx"):
        compile_here(copied, from_onnx=True)


# Inputs and outputs.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fixed": (0, 1)}, r"input_ids has the fixed shape .*export it with dynamic axes"),
        ({"fixed": (0,)}, r"input_ids has the fixed shape \[2,sequence"),
        ({"fixed": (1,)}, r"input_ids has the fixed shape \[batch_size,8"),
        (
            {"inputs": ("input_ids", "attention_mask", "position_ids")},
            "has the input position_ids; poolc feeds input_ids, attention_mask, token_type_ids",
        ),
        ({"inputs": ("input_ids",)}, "has no input attention_mask, without which"),
        ({"dtype": torch.int32}, "input input_ids is INT32; poolc feeds INT64"),
        ({"output": "hidden"}, "has outputs hidden; poolc reads last_hidden_state, token_emb"),
    ],
)
def test_inputs_and_outputs_that_are_refused(
    options: Any, message: str, tmp_path: Path, compile_here: CompileHere
) -> None:
    folder = ship(encoder(tmp_path / "model"), **options)
    with pytest.raises(UnsupportedModel, match=rf"^onnx/model\.onnx.*{message}.*{OR_WEIGHTS}$"):
        compile_here(folder, from_onnx=True)


def with_past(model: onnx.ModelProto) -> None:
    past = helper.make_tensor_value_info("past_key_values.0.key", TensorProto.FLOAT, ["b", 4])
    model.graph.input.insert(0, past)


def with_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 10


def with_own_operator(model: onnx.ModelProto) -> None:
    model.graph.node[-1].domain = "com.example"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_past, r"an export for text generation \(its input past_key_values\.0\.key holds"),
        (with_opset, "has opset 10; poolc reads 11 to 23: export it with one of those"),
        (with_own_operator, r"has the operator \w+ of domain com\.example"),
    ],
)
def test_graphs_that_are_refused(
    change: Callable[[onnx.ModelProto], None],
    message: str,
    copied: Path,
    compile_here: CompileHere,
) -> None:
    model = onnx.load(copied / GRAPH)
    change(model)
    onnx.save(model, copied / GRAPH)
    with pytest.raises(UnsupportedModel, match=rf"^onnx/model\.onnx .*{message}.*{OR_WEIGHTS}$"):
        compile_here(copied, from_onnx=True)


def test_labels_that_differ_are_refused(tmp_path: Path, compile_here: CompileHere) -> None:
    folder = ship(classifier(tmp_path / "model", num_labels=3))
    edit_json(folder / "config.json", id2label={"0": "no", "1": "yes"}, label2id=None)
    message = r"onnx/model\.onnx gives 3 logits, but config\.json has 2 labels"
    with pytest.raises(UnsupportedModel, match=message):
        compile_here(folder, from_onnx=True)
