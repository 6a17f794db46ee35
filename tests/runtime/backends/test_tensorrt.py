"""The TensorRT backend against fakes of the library and of CUDA whose graphs run on the CPU."""

from __future__ import annotations

import json
import shutil
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import poolc
from poolc import compiler_process
from poolc.compiler.events import Progress
from poolc.compiler.pipeline import Request, compile_model
from poolc.compiler.rebuild import rebuild
from poolc.compiler.targets.tensorrt import TensorRTRtxCompiler
from poolc.errors import (
    ArtifactError,
    ArtifactIncompatible,
    BackendError,
    DeviceOutOfMemory,
    InvalidOption,
    MissingDependency,
)
from poolc.model_cache.artifact import open_artifact
from poolc.model_cache.store import Store
from poolc.runtime import first_load
from poolc.runtime.engine import Engine
from poolc.spec import CompileOptions, Target
from tests.runtime.backends import fake_tensorrt
from tests.runtime.backends.fakes import Fakes, install

TEXTS = ["a", "the quick brown fox", "how do I reset my password?", "bread needs salt " * 6]


def test_vectors_are_those_of_the_cpu(engine: Engine, embedder: Engine) -> None:
    assert engine.backend_name == "tensorrt"
    many = TEXTS * 40
    np.testing.assert_allclose(engine.embed(many), embedder.embed(many), atol=2e-6)
    alone = np.stack([engine.embed([text])[0] for text in TEXTS])
    np.testing.assert_allclose(alone, embedder.embed(TEXTS), atol=2e-6)
    for one, other in zip(engine.encode(TEXTS), embedder.encode(TEXTS), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


def test_kernels_are_recorded_once_a_shape(engine: Engine, fakes: Fakes) -> None:
    for _ in range(3):
        engine.embed(["a fox"])
    assert (fakes.cudart.recordings, fakes.cudart.launches) == (1, 2)
    profile, shape = fakes.trt.ran[0]
    fixed = engine.artifact.manifest.profiles[profile or 0]
    assert shape == (1, 16) == fixed.min_shape == fixed.max_shape
    engine.embed(TEXTS)
    engine.embed(TEXTS)
    assert (fakes.cudart.recordings, fakes.cudart.launches) == (2, 3)


def test_where_kernels_cannot_be_recorded_they_are_launched(
    engine: Engine, fakes: Fakes, embedder: Engine
) -> None:
    fakes.cudart.can_record = False
    for _ in range(3):
        np.testing.assert_allclose(engine.embed(TEXTS), embedder.embed(TEXTS), atol=2e-6)
    assert (fakes.cudart.recordings, fakes.cudart.launches) == (0, 0)


def test_only_ids_go_in_and_only_the_rows_asked_for_come_out(engine: Engine, fakes: Fakes) -> None:
    fakes.cudart.copied.clear()
    engine.embed(TEXTS[:3])
    size = engine.spec.embedding_size or 0
    out = [count for way, count in fakes.cudart.copied if way == "out"]
    assert out == [3 * size * 4] * 2  # before and after normalising, in fp32
    rows, seq = fakes.trt.ran[-1][1]
    assert [count for way, count in fakes.cudart.copied if way == "in"] == [rows * seq * 4] * 3


def test_larger_micro_batches_move_the_buffers_and_recordings_follow(
    engine: Engine, embedder: Engine
) -> None:
    """What was recorded with old addresses is not replayed: the fake refuses freed memory."""
    engine.embed(["a fox"])
    engine.embed(TEXTS * 50)
    np.testing.assert_allclose(engine.embed(["a fox"]), embedder.embed(["a fox"]), atol=2e-6)


def test_what_does_not_fit_into_memory_is_halved(
    engine: Engine, fakes: Fakes, embedder: Engine
) -> None:
    fakes.cudart.room = fakes.cudart.held + 40_000
    many = TEXTS * 16
    np.testing.assert_allclose(engine.embed(many), embedder.embed(many), atol=2e-6)
    assert max(rows for _, (rows, _) in fakes.trt.ran) < len(many)


def test_one_text_without_room_fails_alone(engine: Engine, fakes: Fakes, embedder: Engine) -> None:
    fakes.cudart.room = 0
    with pytest.raises(DeviceOutOfMemory, match=r"one text does not fit: cudaMalloc: .* no memory"):
        engine.embed(["a fox"])
    fakes.cudart.room = None
    np.testing.assert_allclose(engine.embed(["a fox"]), embedder.embed(["a fox"]), atol=2e-6)


def test_what_does_not_fit_beside_caches_runs_whole_without_them(
    engine: Engine, fakes: Fakes, embedder: Engine
) -> None:
    """What other outputs and shapes left in memory goes before a micro-batch is cut."""
    many = TEXTS * 16
    engine.encode(many)
    fakes.cudart.room = fakes.cudart.held + 1000
    fakes.trt.ran.clear()
    np.testing.assert_allclose(engine.embed(many), embedder.embed(many), atol=2e-6)
    assert {rows for _, (rows, _) in fakes.trt.ran} == {len(many)}


def test_failures_say_what_the_library_said(engine: Engine, fakes: Fakes) -> None:
    fakes.trt.broken = "the device fell off the bus"
    with pytest.raises(BackendError, match="did not run: the device fell off the bus"):
        engine.embed(["a fox"])
    fakes.trt.broken = "CUDA error: out of memory"
    with pytest.raises(DeviceOutOfMemory, match="one text does not fit"):
        engine.embed(TEXTS)
    fakes.trt.broken = None
    assert engine.embed(["a fox"]).shape[0] == 1
    # What was said then is not said of a failure without words.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fake_tensorrt.IExecutionContext, "set_tensor_address", lambda *_: False)
        with pytest.raises(BackendError, match=r"^input_ids could not be bound$") as found:
            engine.embed([TEXTS[-1] * 2])
    assert not isinstance(found.value, DeviceOutOfMemory)


def test_memory_that_ran_out_is_seen_among_other_messages(
    engine: Engine, fakes: Fakes, embedder: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And where another engine of the process was there first, whose logger the library keeps."""
    other = Engine(engine.artifact)
    execute = fake_tensorrt.IExecutionContext.execute_async_v3

    def large_fails(self: Any, stream_handle: int) -> bool:
        if self._shapes["input_ids"][0] <= 4:
            return execute(self, stream_handle)
        self._engine.fail("allocate::48] Error Code 1: Cuda Runtime (out of memory)")
        return bool(self._engine.fail("IExecutionContext::enqueueV3: Error Code 3: Internal Error"))

    monkeypatch.setattr(fake_tensorrt.IExecutionContext, "execute_async_v3", large_fails)
    for one in (engine, other):
        np.testing.assert_allclose(one.embed(TEXTS * 4), embedder.embed(TEXTS * 4), atol=2e-6)
    other.close()


def test_threads_share_the_lanes(engine: Engine, embedder: Engine) -> None:
    wanted = embedder.embed(TEXTS)
    found: list[Any] = []

    def ask() -> None:
        found.extend(engine.embed(TEXTS) for _ in range(5))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 30
    for vectors in found:
        np.testing.assert_allclose(vectors, wanted, atol=2e-6)


def test_closing_gives_everything_back(fakes: Fakes, compiled: Path) -> None:
    engine = Engine(open_artifact(compiled))
    engine.embed(TEXTS)
    engine.encode(TEXTS)
    assert fakes.cudart.held and fakes.cudart.pinned
    engine.close()
    assert (fakes.cudart.held, fakes.cudart.pinned) == (0, 0)
    with pytest.raises(BackendError, match="was closed"):
        engine.embed(TEXTS)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"version": "11.5.0.1"}, "built by tensorrt 11.4.0.106, and 11.5.0.1 is installed"),
        ({"capability": (8, 0)}, "built for compute capability 9.0, and this GPU .* has 8.0"),
        ({"name": b"NVIDIA H100"}, "built for NVIDIA H200, and this GPU is NVIDIA H100"),
        ({"driver": 12090}, "built under a driver for CUDA 13.1, and this one is for 12.9"),
    ],
)
def test_an_engine_of_another_machine_is_refused(
    setting: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch, compiled: Path
) -> None:
    fakes = install(monkeypatch, **{k: v for k, v in setting.items() if k == "version"})
    for name, value in setting.items():
        setattr(fakes.cudart, name, value)
    with pytest.raises(ArtifactIncompatible, match=f"does not run here: it was {said}.*--rebuild"):
        Engine(open_artifact(compiled))


@pytest.mark.parametrize("driver", [13000, 13020, 14000])
def test_under_another_driver_an_engine_is_compared_before_it_answers(
    driver: int,
    fakes: Fakes,
    compiled: Path,
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once: what was found is remembered for the device and its driver."""
    local = tmp_path / "store"
    shutil.copytree(store.root, local)
    monkeypatch.setenv("POOLC_CACHE", str(local))
    compared: list[str] = []

    def compare(engine: Engine, arrays: Any, device: str) -> None:
        compared.append(device)

    monkeypatch.setattr(first_load, "compare", compare)
    folder = local / compiled.relative_to(store.root)
    poolc.load(folder).close()
    assert not compared  # it was, by the compile
    fakes.cudart.driver = driver
    for _ in range(2):
        poolc.load(folder).close()
    assert len(compared) == 1


def test_without_a_gpu_or_its_driver_it_says_so(fakes: Fakes, compiled: Path) -> None:
    fakes.cudart.devices = 0
    with pytest.raises(MissingDependency, match=r"no NVIDIA GPU can be used .*NoDevice"):
        Engine(open_artifact(compiled))


def test_devices_by_name(fakes: Fakes, compiled: Path) -> None:
    with pytest.raises(InvalidOption, match="device is cuda:1; this machine has 1 GPU"):
        Engine(open_artifact(compiled), device="cuda:1")
    with pytest.raises(InvalidOption, match="device is 'cpu'"):
        Engine(open_artifact(compiled), device="cpu")
    fakes.cudart.devices = 2
    engine = Engine(open_artifact(compiled), device="cuda:0,cuda:1")
    assert engine.streams == 4
    assert engine.embed(TEXTS * 4).shape[0] == 16
    engine.close()


def test_a_damaged_plan_is_refused(fakes: Fakes, compiled: Path, tmp_path: Path) -> None:
    from poolc.model_cache.artifact import Artifact

    folder = tmp_path / "artifact"
    shutil.copytree(compiled, folder)
    (folder / "engine.plan").write_bytes(b"{")
    found = open_artifact(compiled)
    with pytest.raises(ArtifactIncompatible, match=r"engine.plan cannot be loaded .the magic"):
        Engine(Artifact(folder, found.manifest, found.artifact_id))


def test_an_engine_from_outside_the_store_has_to_be_trusted(
    fakes: Fakes, compiled: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "artifact"
    shutil.copytree(compiled, folder)
    with pytest.raises(ArtifactError, match=r"is code, and is not from.*--trust-plan.*--rebuild"):
        poolc.load(folder)
    engine = poolc.load(folder, trust_plan=True)
    assert engine.embed(TEXTS).shape[0] == len(TEXTS)
    engine.close()


def test_an_engine_of_the_store_needs_no_trust(
    fakes: Fakes, compiled: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POOLC_CACHE", str(store.root))
    engine = poolc.load(compiled)
    assert engine.artifact.path == compiled
    engine.close()


def test_an_engine_is_rebuilt_for_this_machine(
    compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, embedder: Engine
) -> None:
    """From the ONNX in it, once, and compared with its reference before it answers."""
    fakes = install(monkeypatch, version="11.5.0.1")
    fakes.cudart.name, fakes.cudart.capability = b"NVIDIA L4", (8, 9)
    local = Store(tmp_path / "local")
    monkeypatch.setenv("POOLC_CACHE", str(local.root))
    jobs: list[compiler_process.Job] = []

    def run(job: compiler_process.Job, on_event: Any) -> compiler_process.Done:
        jobs.append(job)
        made = rebuild(Path(job.model), local, Progress(lambda event: None))
        return compiler_process.Done(made.path, {})

    monkeypatch.setattr(compiler_process, "run", run)
    for _ in range(2):
        engine = poolc.load(compiled, rebuild=True)
        np.testing.assert_allclose(engine.embed(TEXTS), embedder.embed(TEXTS), atol=2e-6)
        engine.close()
    fakes.cudart.driver = 13020
    poolc.load(compiled, rebuild=True).close()
    assert len(jobs) == 1 and jobs[0].rebuild
    requires = engine.artifact.manifest.requires.engine
    assert requires is not None
    assert (requires.version, requires.gpu) == ("11.5.0.1", "NVIDIA L4")
    assert requires.compute_capabilities == ("8.9",)
    assert engine.artifact.space_id == open_artifact(compiled, check_host=False).space_id
    assert engine.artifact.report()["parity"]["scope"] == "canonical-only"


def test_an_engine_is_rebuilt_on_the_gpu_that_was_asked_for(
    fakes: Fakes, compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes.cudart.devices = 2
    jobs: list[compiler_process.Job] = []

    def run(job: compiler_process.Job, on_event: Any) -> compiler_process.Done:
        jobs.append(job)
        fakes.cudart.selected.clear()
        made = rebuild(Path(job.model), local, Progress(lambda event: None), job.device)
        return compiler_process.Done(made.path, {})

    local = Store(tmp_path / "local")
    monkeypatch.setenv("POOLC_CACHE", str(local.root))
    monkeypatch.setattr(compiler_process, "run", run)
    poolc.load(compiled, rebuild=True, device="cuda:1").close()
    assert [job.device for job in jobs] == [1]
    assert fakes.cudart.selected[0] == 1
    assert json.loads(jobs[0].to_json())["device"] == 1


def test_profiles_that_do_not_fit_the_model_are_refused_before_it_is_exported(
    fakes: Fakes, tiny_embedder_source: Path, tmp_path: Path
) -> None:
    options = CompileOptions(target=Target.TENSORRT, profiles="batch=1..4,seq=1..16")
    stages: list[str] = []
    with pytest.raises(InvalidOption, match="profiles reach 16 tokens a text"):
        compile_model(
            Request(str(tiny_embedder_source), options),
            Store(tmp_path),
            Progress(lambda event: stages.append(str(event.get("name")))),
        )
    assert "recognise" in stages and "export" not in stages


@pytest.mark.parametrize("capability", [(8, 9), (12, 0)])
def test_an_engine_for_another_gpu_is_compiled_beside_this_one(
    capability: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs nothing here; so the artifact is compared where it is first loaded."""
    fakes = install(monkeypatch, version="1.7.1.116")
    library: Any = fakes.trt
    members = SimpleNamespace(__members__={"SM89": 0, "SM120": 1})
    library.ComputeCapability = members
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", library)
    fakes.cudart.name, fakes.cudart.capability = b"NVIDIA RTX 4090", capability
    options = CompileOptions(target=Target.TENSORRT_RTX, compute_capability="12.0")
    absent = TensorRTRtxCompiler().absent(options)
    here = capability == (12, 0)
    assert (absent is None) == here
    assert here or "RTX 4090, has compute capability 8.9, and the engine is for 12.0" in str(absent)


def test_what_was_timed_is_kept_by_library_gpu_and_driver(compiled: Path, store: Store) -> None:
    (cache,) = (store.root / "timing").iterdir()
    assert cache.name == "tensorrt-11.4.0.106-nvidia-h200-13.1.cache"
    assert cache.read_bytes() == b".."  # one engine after the other


def test_the_manifest_says_what_the_engine_needs(compiled: Path) -> None:
    manifest = open_artifact(compiled).manifest
    requires = manifest.requires.engine
    assert requires is not None and manifest.requires.onnxruntime is None
    assert (requires.library, requires.driver) == ("tensorrt", "13.1")
    graph = manifest.graphs["main"]
    assert (graph.file, graph.onnx) == ("engine.plan", "model.onnx")
    assert {value.dtype for value in graph.inputs} == {"int32"}
    assert len(graph.scratch_bytes) == len(manifest.profiles) > 3
    assert {"model.onnx", "model.onnx.data", "parity.safetensors"} <= manifest.files.keys()
