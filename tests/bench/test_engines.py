"""Measuring engines: against fakes of TensorRT and of CUDA whose graphs run on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import save

from poolc.bench import engine_peaks
from poolc.bench.engine_graphs import onnx_of, weight_bytes
from poolc.bench.model import measure, table
from poolc.bench.operations import counted
from poolc.compiler.events import Progress
from poolc.compiler.pipeline import Request, compile_model
from poolc.compiler.targets.engine_builder import BuildSettings, build
from poolc.errors import BackendError, InvalidOption
from poolc.model_cache.artifact import Artifact
from poolc.model_cache.store import Store
from poolc.runtime.engine import Engine
from poolc.runtime.profiles import parse_profiles
from poolc.spec import CompileOptions, Precision, Target
from tests.runtime.backends.fakes import Fakes, install

SIZE = 64
PRECISIONS = [Precision.FP32, Precision.FP16, Precision.BF16, Precision.FP8]


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Fakes:
    monkeypatch.setattr(engine_peaks, "_SIZE", SIZE)
    monkeypatch.setattr(engine_peaks, "_COPIED_BYTES", 1 << 16)
    return install(monkeypatch)


@pytest.fixture(
    params=[Precision.FP16, pytest.param(Precision.FP8, marks=pytest.mark.slow)], scope="module"
)
def compiled(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    tiny_embedder_source: Path,
) -> Artifact:
    options = CompileOptions(target=Target.TENSORRT, precision=request.param)
    wanted, store = Request(str(tiny_embedder_source), options), tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        install(patch)
        return compile_model(wanted, Store(store), Progress(lambda event: None))


@pytest.fixture
def engine(fakes: Fakes, compiled: Artifact) -> Iterator[Engine]:
    made = Engine(compiled)
    yield made
    made.close()


def test_an_engine_is_measured(engine: Engine) -> None:
    found = measure(engine, ["the quick brown fox", "a river", "fox " * 20], 0.05)
    assert found.texts == 3 and found.rounds >= 3
    assert 0 <= found.padding_share < 1
    assert found.utilisation == found.operations_per_s / found.peak_operations_per_s
    assert "of the measured peak" in table(found)


def test_operations_are_those_of_the_model_on_a_cpu(engine: Engine, embedder: Engine) -> None:
    ours, exact = counted(engine), counted(embedder)
    lengths = [5, 30]
    assert ours.of(lengths) == pytest.approx(exact.of(lengths), rel=0.02)
    share = {Precision.FP16: 1 / 2, Precision.FP8: 1 / 4}[engine.artifact.manifest.precision]
    assert ours.weight_bytes == pytest.approx(share * exact.weight_bytes, rel=0.25)
    file = onnx_of(engine)
    assert 0 < weight_bytes(file) < file.with_name("model.onnx.data").stat().st_size


def test_nothing_is_held_afterwards(fakes: Fakes) -> None:
    engine_peaks.product(Target.TENSORRT, Precision.FP16, None)
    assert engine_peaks.bandwidth(None) > 0
    assert (fakes.cudart.held, fakes.cudart.pinned) == (0, 0)
    assert {way for way, _ in fakes.cudart.copied} == {"in", "out", "within"}


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16, Precision.FP8])
def test_the_peak_multiplies_what_it_says(precision: Precision) -> None:
    """Sixteen products of numbers that neither grow nor vanish, so that no kernel is spared."""
    graph = engine_peaks.products(precision, SIZE)
    constants = {one.name: one for one in graph.graph.initializer}
    assert list(constants["w"].dims) == [SIZE, SIZE]
    assert [node.op_type for node in graph.graph.node].count("MatMul") == 16
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (answer,) = session.run(None, {"seed": np.ones((1, 1), np.float32)})
    assert answer.shape == (1, 1)
    assert 0.1 < answer.item() < 100


def test_what_is_missing_is_said(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidOption, match="no peak is known for int8; known: fp32, fp16, bf16"):
        engine_peaks.product(Target.TENSORRT, Precision.INT8, None)
    fakes.trt.broken = "the device fell off the bus"
    with pytest.raises(BackendError, match="fell off the bus"):
        engine_peaks.product(Target.TENSORRT, Precision.FP32, None)
    fakes.cudart.devices = 0
    with pytest.raises(BackendError, match="cudaSetDevice failed"):
        engine_peaks.bandwidth(None)


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
def test_tensorrt_rtx_compiles_the_peak(precision: Precision, tmp_path: Path) -> None:
    rtx: ModuleType = pytest.importorskip("tensorrt_rtx_bindings")
    save(engine_peaks.products(precision, 256), tmp_path / "model.onnx")
    settings: dict[str, Any] = {"exact": precision is Precision.FP32}
    profiles = parse_profiles("batch=1,seq=1")
    asked = BuildSettings(profiles, compute_capabilities=("8.9",), **settings)
    assert len(build(rtx, tmp_path / "model.onnx", asked).plan) > 1000
