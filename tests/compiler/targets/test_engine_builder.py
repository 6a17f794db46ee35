"""The builder of engines: against a fake of the library, and against TensorRT-RTX itself.

TensorRT-RTX parses and compiles without a GPU; it is not bit for bit TensorRT, and knows no GPU of
compute capability 9.0, so that what it accepts is evidence for TensorRT and no proof.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, save

from poolc.compiler.passes.float8_linears import Float8LinearsPass
from poolc.compiler.passes.select_outputs import SelectOutputsPass
from poolc.compiler.quantize.linears import find_groups
from poolc.compiler.quantize.schemes import Choice, Scheme
from poolc.compiler.targets.engine_builder import (
    BuildSettings,
    _configure,
    build,
    compute_capability_names,
)
from poolc.compiler.targets.engines import EngineBuilder, build_engines
from poolc.compiler.targets.tensorrt import TensorRTRtxCompiler, lower_graph
from poolc.compiler.weights import save_sharing_weights
from poolc.errors import CompileError, InvalidOption
from poolc.runtime.backends.cuda_device import find_device
from poolc.runtime.backends.tensorrt_library import messages
from poolc.runtime.profiles import parse_profiles
from poolc.spec import MAIN_SET, Precision, Target, output_sets
from tests.compiler.exported import exported
from tests.matrix import families
from tests.runtime.backends import fake_tensorrt
from tests.runtime.backends.fake_cudart import FakeCudart
from tests.runtime.backends.fake_tensorrt import FakeTensorRT
from tests.runtime.backends.fake_tensorrt_rtx import FakeTensorRTRtx
from tests.runtime.backends.fakes import install

PROFILES = parse_profiles("batch=1,seq=16;batch=1..8,seq=1..64;batch=1..2,seq=64")
# Encoders with learned, rotary and relative positions, and decoders.
CELLS = (
    *("bert/cls", "xlm-roberta/cls", "modernbert/cls", "nomic-bert/cls", "mpnet/cls"),
    *("deberta-v2/cls", "t5/cls", "qwen3/last", "gemma3/last"),
)
FUSED = frozenset({"bert/cls", "xlm-roberta/cls", "modernbert/cls", "nomic-bert/cls"})
# Their positions are added to what queries and keys give, which Attention has not.
WITHOUT_ATTENTION = frozenset({"mpnet/cls", "deberta-v2/cls"})


@pytest.fixture(scope="module")
def exported_cell(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], tuple[ir.Model, Any]]:
    """Export a family with heads of 64 numbers, once; return its canonical graph and spec."""
    made: dict[str, tuple[ir.Model, Any]] = {}

    def export(cell: str) -> tuple[ir.Model, Any]:
        if cell not in made:
            with pytest.MonkeyPatch.context() as patch:
                for name, value in {"hidden_size": 256, "intermediate_size": 512}.items():
                    patch.setitem(families._SIZES, name, value)
                made[cell] = exported(cell, tmp_path_factory.mktemp("model"))
        return made[cell]

    return export


@pytest.fixture(scope="module")
def onnx_file(
    exported_cell: Callable[[str], tuple[ir.Model, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, Precision], Path]:
    """Lower an exported family, and return the file of the main graph."""

    def write(cell: str, precision: Precision) -> Path:
        graph, spec = exported_cell(cell)
        model = SelectOutputsPass(output_sets(spec)[MAIN_SET])(graph.clone()).model
        rewrites = TensorRTRtxCompiler().untimed().rewrites
        lower_graph(model, rewrites, precision, spec.max_length)
        folder = tmp_path_factory.mktemp("graph")
        save_sharing_weights({"model.onnx": model}, folder, "model.onnx.data")
        return folder / "model.onnx"

    return write


@pytest.fixture(scope="module")
def rtx() -> ModuleType:
    module: ModuleType = pytest.importorskip("tensorrt_rtx_bindings")
    return module


def settings(**changed: Any) -> BuildSettings:
    return BuildSettings(PROFILES, compute_capabilities=("8.9", "12.0"), **changed)


@pytest.mark.slow
@pytest.mark.parametrize("precision", [Precision.FP16, Precision.BF16])
@pytest.mark.parametrize("cell", CELLS)
def test_tensorrt_rtx_compiles(
    cell: str,
    precision: Precision,
    rtx: ModuleType,
    onnx_file: Callable[[str, Precision], Path],
) -> None:
    built = build(rtx, onnx_file(cell, precision), settings())
    assert len(built.plan) > 100_000
    assert built.fused_attention == (None if cell in WITHOUT_ATTENTION else cell in FUSED)


@pytest.mark.slow
@pytest.mark.parametrize("precision", [Precision.FP16, Precision.BF16])
def test_tensorrt_rtx_fuses_decoders_with_heads_of_64(
    precision: Precision,
    rtx: ModuleType,
    onnx_file: Callable[[str, Precision], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those of the other tests have 8, for which no kernel is. Two heads share keys and values."""
    family = families.FAMILIES["qwen3"]

    def config(folder: Path) -> Any:
        made = family.config(folder)
        made.head_dim = 64
        return made

    wider = replace(family, name="qwen3-64", config=config)
    monkeypatch.setitem(families.FAMILIES, wider.name, wider)
    assert build(rtx, onnx_file(f"{wider.name}/last", precision), settings()).fused_attention


@pytest.mark.slow
def test_tensorrt_rtx_is_asked_for_engines_that_can_be_recorded(rtx: ModuleType) -> None:
    config = rtx.Builder(messages(rtx)).create_builder_config()
    _configure(rtx, config, settings())
    assert config.get_flag(rtx.BuilderFlag.REQUIRE_USER_ALLOCATION)
    assert config.get_preview_feature(rtx.PreviewFeature.RUNTIME_ACTIVATION_RESIZE_10_10)


@pytest.mark.slow
def test_tensorrt_rtx_compiles_fp32_without_fused_attention(
    rtx: ModuleType, onnx_file: Callable[[str, Precision], Path]
) -> None:
    built = build(rtx, onnx_file("bert/cls", Precision.FP32), settings(exact=True))
    assert len(built.plan) > 100_000 and not built.fused_attention


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["bert/cls", "gpt2/last", "qwen3/last"])
def test_tensorrt_rtx_compiles_fp8(
    cell: str, rtx: ModuleType, exported_cell: Callable[[str], tuple[ir.Model, Any]], tmp_path: Path
) -> None:
    """For GPUs that have it; the library refuses the others, as the target does before."""
    graph, spec = exported_cell(cell)
    choices = {
        group.name: Choice(Scheme.STATIC, 0.0, scale=0.02) for group in find_groups(graph.graph)
    }
    model = SelectOutputsPass(output_sets(spec)[MAIN_SET])(graph.clone()).model
    rewrites = TensorRTRtxCompiler().untimed().rewrites
    lower_graph(model, rewrites, Precision.FP8, spec.max_length, Float8LinearsPass(choices))
    save_sharing_weights({"model.onnx": model}, tmp_path, "model.onnx.data")
    built = build(rtx, tmp_path / "model.onnx", settings())
    assert len(built.plan) > 100_000
    assert built.fused_attention == (cell in FUSED)
    with pytest.raises(CompileError, match="cannot build"):
        build(rtx, tmp_path / "model.onnx", BuildSettings(PROFILES, compute_capabilities=("8.6",)))


@pytest.mark.slow
def test_tensorrt_rtx_says_what_it_cannot_read(rtx: ModuleType, tmp_path: Path) -> None:
    """Every node that it refuses: here types that a strongly typed network does not mix."""
    half = helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["batch", 4])
    full = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])
    out = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", 4])
    node = helper.make_node("Mul", ["x", "y"], ["z"], name="mixed")
    graph = helper.make_graph([node], "mixed", [half, full], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    save(model, tmp_path / "model.onnx")
    with pytest.raises(CompileError, match=r"cannot read model.onnx:\n  Mul mixed: "):
        build(rtx, tmp_path / "model.onnx", settings())


@pytest.mark.slow
def test_tensorrt_rtx_compiles_for_known_gpus_only(
    rtx: ModuleType, onnx_file: Callable[[str, Precision], Path]
) -> None:
    assert {"8.9", "12.0"} <= set(compute_capability_names(rtx))
    asked = BuildSettings(PROFILES, compute_capabilities=("9.0",))
    with pytest.raises(InvalidOption, match=r"is 9.0; tensorrt_rtx 1.* compiles"):
        build(rtx, onnx_file("bert/cls", Precision.FP16), asked)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "fp8"])
def test_a_model_compiles_for_tensorrt_rtx_from_the_command_line(
    precision: str, rtx: ModuleType, tiny_embedder_source: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "poolc", "compile", str(tiny_embedder_source)]
    command += ["--target", "tensorrt-rtx", "--precision", precision, "--compute-capability", "8.9"]
    command += ["--output", str(tmp_path / "artifact"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["parity"]["scope"] == "canonical-only"
    assert (said["fp8"] is not None) == (precision == "fp8")
    manifest = json.loads((tmp_path / "artifact" / "manifest.json").read_text())
    needs = manifest["requires"]["engine"]
    assert (needs["library"], needs["compute_capabilities"]) == ("tensorrt_rtx", ["8.9"])
    assert needs["version"] == rtx.__version__
    assert manifest["graphs"]["main"]["file"] == "engine.plan"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A file that the fake library takes for a graph, without an operator for attention."""
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT32, ["batch", "seq"])
    out = helper.make_tensor_value_info("out", TensorProto.INT32, ["batch", "seq"])
    return saved(tmp_path, helper.make_node("Identity", ["input_ids"], ["out"]), ids, out)


@pytest.fixture
def attending(tmp_path: Path) -> Path:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2, "seq", 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2, "seq", 8])
    return saved(tmp_path, helper.make_node("Attention", ["x", "x", "x"], ["y"]), x, y)


def saved(folder: Path, node: Any, given: Any, made: Any) -> Path:
    graph = helper.make_graph([node], "small", [given], [made])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    save(model, folder / "model.onnx")
    return folder / "model.onnx"


def fake_module() -> Any:
    return FakeTensorRT(FakeCudart())


@pytest.fixture
def configs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the fake library was asked to build with."""
    found: list[Any] = []
    built = fake_tensorrt.Builder.build_serialized_network

    def record(self: Any, network: Any, config: Any) -> Any:
        found.append(config)
        return built(self, network, config)

    monkeypatch.setattr(fake_tensorrt.Builder, "build_serialized_network", record)
    return found


def test_settings_reach_the_builder(small: Path, configs: list[Any]) -> None:
    asked = BuildSettings(
        PROFILES,
        exact=True,
        optimization_level=5,
        workspace_bytes=1 << 30,
        hardware_compatibility="same-compute-capability",
        version_compatible=True,
    )
    built = build(fake_module(), small, asked, b"timed")
    (config,) = configs
    assert config.set == [("clear", 6), ("set", 12), (0, 1 << 30)]
    assert (config.builder_optimization_level, config.hardware_compatibility_level) == (5, 2)
    assert [one.shapes["input_ids"] for one in config.profiles][1] == [[1, 1], [8, 64], [8, 64]]
    assert config.previews == [1]
    assert (built.timing_cache, built.fused_attention) == (b"timed.", None)


def test_nothing_asked_for_leaves_the_librarys_defaults(small: Path, configs: list[Any]) -> None:
    build(fake_module(), small, BuildSettings(PROFILES))
    (config,) = configs
    assert config.set == []
    assert config.previews == [1]  # scratch memory for the shapes at hand
    assert (config.builder_optimization_level, config.hardware_compatibility_level) == (3, 0)


def test_engines_of_tensorrt_rtx_allocate_nothing_while_they_run(
    small: Path, configs: list[Any]
) -> None:
    """Or they could not be recorded. TensorRT has no such flag."""
    trt: Any = FakeTensorRTRtx(FakeCudart())
    build(trt, small, BuildSettings(PROFILES))
    (config,) = configs
    assert (config.set, config.previews) == ([("set", 21)], [1])


def test_attention_is_said_to_be_fused_where_there_is_any(attending: Path) -> None:
    assert build(fake_module(), attending, BuildSettings(PROFILES)).fused_attention is True


@pytest.mark.parametrize("refused", ["it is another's", "it cannot be read", "all"])
def test_a_timing_cache_that_is_refused_is_begun_anew(
    refused: str, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = fake_tensorrt.IBuilderConfig
    accept, create = config.set_timing_cache, config.create_timing_cache

    def accept_own(self: Any, cache: Any, ignore_mismatch: bool) -> bool:
        if not ignore_mismatch and cache.content == b"":
            return refused != "all" and accept(self, cache, ignore_mismatch)
        self.cache = None
        return False

    def create_empty(self: Any, content: bytes) -> Any:
        return None if content else create(self, content)

    if refused == "it cannot be read":
        monkeypatch.setattr(config, "create_timing_cache", create_empty)
    else:
        monkeypatch.setattr(config, "set_timing_cache", accept_own)
    built = build(fake_module(), small, BuildSettings(PROFILES), b"of another GPU")
    assert built.plan
    assert built.timing_cache == (b"" if refused == "all" else b".")


def test_a_build_without_a_timing_cache_after_it_keeps_its_engine(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake_tensorrt.IBuilderConfig, "get_timing_cache", lambda self: None)
    built = build(fake_module(), small, BuildSettings(PROFILES))
    assert built.plan and built.timing_cache == b""


@pytest.mark.parametrize("version_compatible", [False, True])
def test_what_profiles_take_is_asked_of_any_engine(
    version_compatible: bool, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that runs under later versions brings code along, which has to be allowed."""
    trt: Any = install(monkeypatch).trt
    builder = EngineBuilder(Target.TENSORRT, trt, find_device(), ("9.0",))
    asked = BuildSettings(PROFILES, version_compatible=version_compatible)
    (made,) = build_engines(builder, asked, small.parent, {MAIN_SET: small.name}).values()
    assert made.scratch_bytes == (16 * 64, 8 * 64 * 64, 2 * 64 * 64)


def test_what_was_said_of_an_earlier_build_is_not_said_of_this_one(
    attending: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process has one logger: no kernel for one model's heads is nothing about another's."""
    trt = fake_module()
    messages(trt).log(fake_tensorrt.ILogger.ERROR, "not supported by a dedicated kernel")
    monkeypatch.setattr(fake_tensorrt.Builder, "build_serialized_network", lambda *_: None)
    with pytest.raises(CompileError, match=r"cannot build model.onnx: it does not say why"):
        build(trt, attending, BuildSettings(PROFILES))


@pytest.mark.parametrize(
    ("said", "attempts"),
    [("Attention was not supported by a dedicated kernel.", 2), ("no room for weights", 1)],
)
def test_attention_without_a_kernel_is_built_from_products(
    said: str, attempts: int, attending: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    built = fake_tensorrt.Builder.build_serialized_network

    def first_fails(self: Any, network: Any, config: Any) -> Any:
        tried.append(said)
        if len(tried) > 1:
            return built(self, network, config)
        self._logger.log(fake_tensorrt.ILogger.ERROR, said)
        return None

    monkeypatch.setattr(fake_tensorrt.Builder, "build_serialized_network", first_fails)
    if attempts == 1:
        with pytest.raises(CompileError, match=f"11.4.0.106 cannot build model.onnx: {said}"):
            build(fake_module(), attending, BuildSettings(PROFILES))
    else:
        found = build(fake_module(), attending, BuildSettings(PROFILES))
        assert found.fused_attention is False
    assert len(tried) == attempts
