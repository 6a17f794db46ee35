"""E4M3 as PyTorch rounds it, and artifacts in fp8 on fakes of TensorRT whose graphs run here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from poolc.compiler.events import Progress
from poolc.compiler.passes import float8_linears
from poolc.compiler.pipeline import Request, compile_model
from poolc.compiler.quantize.float8 import LARGEST, choose_float8, scales_of, to_e4m3
from poolc.compiler.quantize.schemes import Activations, Scheme
from poolc.compiler.rebuild import rebuild
from poolc.errors import ArtifactIncompatible, InvalidOption, ParityError
from poolc.model_cache.artifact import Artifact, open_artifact
from poolc.model_cache.store import Store
from poolc.spec import CompileOptions, Precision, Target
from tests.models import bert_config, save_model, wordpiece, write_modules, write_pooling
from tests.runtime.backends.fakes import install

RANDOM = np.random.default_rng(3)


def as_torch(values: Any, scale: Any) -> Any:
    """Round as PyTorch does, which knows no saturation: the numbers are inside the range."""
    scaled = torch.from_numpy(np.asarray(values / scale, np.float32))
    return scaled.to(torch.float8_e4m3fn).to(torch.float32).numpy()


def test_numbers_are_rounded_as_pytorch_does() -> None:
    values = np.concatenate(
        [RANDOM.normal(size=4000), 10.0 ** RANDOM.uniform(-9, 0, 4000), [0.0, -0.0]]
    ).astype(np.float32)
    scale = scales_of(np.abs(values).max())
    made = to_e4m3(values, scale).astype(np.float32)
    np.testing.assert_array_equal(made, as_torch(values, scale))
    assert torch.finfo(torch.float8_e4m3fn).max == LARGEST


def test_what_is_beyond_the_range_becomes_the_largest() -> None:
    made = to_e4m3(np.array([1e6, -1e6, 449.0], np.float32), 1.0).astype(np.float32)
    assert made.tolist() == [LARGEST, -LARGEST, LARGEST]


def test_scales_are_numbers_of_fp16_that_keep_their_precision() -> None:
    scales = scales_of(10.0 ** RANDOM.uniform(-12, 6, 500))
    np.testing.assert_array_equal(scales, scales.astype(np.float16).astype(np.float32))
    assert scales.min() >= np.finfo(np.float16).smallest_normal


def test_one_large_channel_costs_the_others_nothing() -> None:
    """Why nothing is smoothed: the error of each number is relative to that number."""
    sample = RANDOM.normal(size=(256, 64)).astype(np.float32)
    matrix = RANDOM.normal(size=(64, 48)).astype(np.float32)
    plain = Activations(sample.min(0), sample.max(0), sample)
    wide, narrow = sample.copy(), matrix.copy()
    wide[:, 5] *= 200
    narrow[5] /= 200
    scaled = Activations(wide.min(0), wide.max(0), wide)
    one, other = choose_float8(plain, matrix), choose_float8(scaled, narrow)
    assert one.scheme is other.scheme is Scheme.STATIC
    assert 0.005 < one.error < 0.05
    assert other.error == pytest.approx(one.error, rel=0.15)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of one layer: random ones lose more with every layer, and the gate is near."""
    from transformers import BertModel

    folder = tmp_path_factory.mktemp("model")
    save_model(BertModel(bert_config(len(wordpiece(folder)), num_hidden_layers=1)), folder)
    write_modules(folder, ("Transformer", ""), ("Pooling", "1_Pooling"))
    write_pooling(folder, "mean_tokens")
    return folder


def compiled(source: Path, store: Store, quality: Path | None = None, **options: Any) -> Artifact:
    asked = CompileOptions(target=Target.TENSORRT, precision=Precision.FP8, **options)
    request = Request(str(source), asked, quality=quality)
    return compile_model(request, store, Progress(lambda event: None))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Texts to calibrate on, and labelled ones to measure."""
    folder = tmp_path_factory.mktemp("texts")
    texts, labelled = folder / "texts.txt", folder / "labelled.jsonl"
    texts.write_text("the river\nthe old bridge of stone\nbread, water, salt\n" * 4)
    pairs = [("a river", "the river", 5), ("bread", "a bridge", 1), ("salt", "salt water", 3)]
    rows = [{"sentence1": a, "sentence2": b, "score": score} for a, b, score in pairs]
    labelled.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return texts, labelled


@pytest.fixture(scope="module")
def made(store: Store, source: Path, files: tuple[Path, Path]) -> Artifact:
    """A small BERT in fp8, compiled and verified on the fake GPU, an H200."""
    texts, labelled = files
    with pytest.MonkeyPatch.context() as patch:
        install(patch)
        return compiled(source, store, labelled, calibrate=str(texts))


def test_what_an_artifact_says(made: Artifact) -> None:
    manifest, report = made.manifest, made.report()
    groups = manifest.tuning["fp8"]["groups"]["main"]
    assert manifest.precision is Precision.FP8
    assert len(groups) == 4
    assert {group["scheme"] for group in groups.values()} <= {"static", "fp16"}
    assert report["fp8"]["calibrated_on"] == "the user's texts"
    assert report["quality"]["spearman_x_100"].keys() == {"fp32", "fp8"}
    parity = report["parity"]
    assert parity["scope"] == "artifact"
    assert parity["mean_cosine"] >= 0.995 and parity["worst_cosine"] >= 0.98
    assert parity["worst_cosine"] < 0.9999  # or nothing was quantised


def test_weights_take_a_byte_and_the_rest_of_the_trunk_is_in_fp16(made: Artifact) -> None:
    import onnx

    model = onnx.load(str(made.file("model.onnx")), load_external_data=False)
    made_by = {name: node for node in model.graph.node for name in node.output}
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    quantized = made.manifest.tuning["fp8"]["groups"]["main"].values()
    wanted = sum(group["scheme"] == "static" for group in quantized)
    steps = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert len(steps) == wanted > 0
    kinds = onnx.TensorProto
    for node in steps:
        assert types[node.input[1]] == kinds.FLOAT16
        assert types[node.input[2]] == kinds.FLOAT8E4M3FN
    products = [node for node in model.graph.node if node.op_type in ("MatMul", "Gemm")]
    low = [node for node in products if made_by[node.input[0]].op_type == "DequantizeLinear"]
    assert len(low) >= wanted
    for node in low:
        weights = made_by[node.input[1]]
        assert types[weights.input[0]] == kinds.FLOAT8E4M3FN
        assert types[weights.input[1]] == kinds.FLOAT16  # no cast between it and the product
        assert made_by[node.input[0]].input[0] in {step.output[0] for step in steps}


@pytest.mark.slow
def test_compile_again_gives_the_same_bytes(
    made: Artifact,
    source: Path,
    files: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch)
    again = compiled(source, Store(tmp_path / "store"), calibrate=str(files[0]))
    assert again.artifact_id == made.artifact_id


@pytest.mark.slow
def test_a_trained_model_passes_the_gate_on_shipped_texts(
    store: Store, minilm_source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch)
    artifact = compiled(minilm_source, store, profiles="batch=1..32,seq=1..256")
    report = artifact.report()
    assert report["fp8"]["calibrated_on"] == "shipped texts"
    assert report["parity"]["mean_cosine"] >= 0.995
    assert report["fp8"]["routes"]["main"]["schemes"]["static"] >= 20  # of 24


@pytest.mark.slow
def test_the_gate_holds_fp8(store: Store, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that a scale makes too small for E4M3 lose what they are."""
    install(monkeypatch)
    monkeypatch.setattr(float8_linears, "scales_of", lambda largest: 1e5 * scales_of(largest))
    with pytest.raises(ParityError, match="nothing was written"):
        compiled(source, store)


def test_gpus_without_fp8_are_refused(
    source: Path, made: Artifact, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes = install(monkeypatch)
    with pytest.raises(InvalidOption, match=r"needs GPUs of compute capability 8.9 .*ampere-plus"):
        compiled(source, store, hardware_compatibility="ampere-plus")
    fakes.cudart.capability = (8, 6)
    with pytest.raises(InvalidOption, match=r"the engine is for 8.6: compile in fp16"):
        compiled(source, store)
    with pytest.raises(ArtifactIncompatible, match=r"cannot be rebuilt here: precision fp8 needs"):
        rebuild(made.path, store, Progress(lambda event: None))


def test_fp8_is_rebuilt_where_it_runs(
    made: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes = install(monkeypatch, version="11.5.0.1")
    fakes.cudart.name, fakes.cudart.capability = b"NVIDIA L4", (8, 9)
    again = rebuild(made.path, Store(tmp_path / "local"), Progress(lambda event: None))
    assert open_artifact(again.path).manifest.precision is Precision.FP8
