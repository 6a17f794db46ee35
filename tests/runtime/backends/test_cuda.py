"""The CUDA backend against a fake of ONNX Runtime whose graphs run in NumPy."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime
import pytest

import poolc
from poolc.errors import (
    ArtifactIncompatible,
    BackendError,
    DeviceOutOfMemory,
    InvalidOption,
    MissingDependency,
)
from poolc.model_cache.artifact import open_artifact
from poolc.model_cache.store import Store
from poolc.runtime import first_load
from poolc.runtime.backends import cuda
from poolc.runtime.backends.cuda import CudaBackend, device_id
from poolc.runtime.backends.cuda_library import load_cuda
from poolc.runtime.backends.turns import turns
from poolc.runtime.engine import Engine
from poolc.runtime.probe import Gpu
from tests.runtime.backends import fake_cuda
from tests.runtime.backends.fake_cuda import FakeCuda, broken_provider

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
TEXTS = ["a", "the quick brown fox", "how do I reset my password?", "bread needs salt " * 6]


@pytest.fixture(scope="session")
def tiny_cuda(shared_root: Path, tiny_embedder_source: Path) -> Path:
    """A small BERT for cuda in fp32, compiled here, where no GPU is."""
    quiet: Callable[[dict[str, Any]], None] = lambda event: None  # noqa: E731
    return poolc.compile(tiny_embedder_source, target="cuda", on_event=quiet).path


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    found = FakeCuda(onnxruntime)
    monkeypatch.setattr(cuda, "import_onnxruntime", lambda: found)
    return found


def test_the_fake_has_no_name_that_the_library_lacks() -> None:
    real = {
        fake_cuda.OrtValue: onnxruntime.OrtValue,
        fake_cuda.IOBinding: onnxruntime.IOBinding,
        fake_cuda.InferenceSession: onnxruntime.InferenceSession,
        FakeCuda: onnxruntime,
    }
    for made, library in real.items():
        names = {name for name in vars(made) if not name.startswith("_")}
        assert names and not {name for name in names if not hasattr(library, name)}


def test_vectors_are_those_of_the_cpu(fake: FakeCuda, tiny_cuda: Path, embedder: Engine) -> None:
    engine = Engine(open_artifact(tiny_cuda))
    assert engine.backend_name == "onnxruntime-cuda"
    many = TEXTS * 40  # more tokens than any bucket has
    np.testing.assert_allclose(engine.embed(many), embedder.embed(many), atol=2e-6)
    alone = np.stack([engine.embed([text])[0] for text in TEXTS])
    np.testing.assert_allclose(alone, embedder.embed(TEXTS), atol=2e-6)
    for one, other in zip(engine.encode(TEXTS), embedder.encode(TEXTS), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)
    assert {kind for kind, _ in fake.ran} == {"run", "replay"}
    engine.close()


def test_kernels_are_recorded_once_a_bucket(fake: FakeCuda, tiny_cuda: Path) -> None:
    engine = Engine(open_artifact(tiny_cuda))
    for _ in range(3):
        engine.embed(["a fox"])
    engine.embed(TEXTS)
    plain, recorded = fake.sessions
    assert plain.settings["enable_cuda_graph"] == "0" and not plain.recorded
    assert recorded.settings["enable_cuda_graph"] == "1"
    # Twice to record, then once a call; four texts are another bucket.
    assert recorded.recorded == ["1"] * 5 + ["2"] * 3
    engine.close()


def test_nothing_runs_while_kernels_are_recorded(
    fake: FakeCuda, tiny_cuda: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(open_artifact(tiny_cuda))
    recording, may_end = threading.Event(), threading.Event()
    record = cuda._Model._record

    def slowly(model: Any, filled: Any) -> Any:
        recording.set()
        assert may_end.wait(30)
        return record(model, filled)

    monkeypatch.setattr(cuda._Model, "_record", slowly)
    first = threading.Thread(target=engine.embed, args=(["a fox"],))
    first.start()
    assert recording.wait(30)
    second = threading.Thread(target=engine.embed, args=(TEXTS * 40,))
    second.start()
    assert not fake.ran
    may_end.set()
    first.join(30)
    second.join(30)
    assert fake.ran[0][0] == "replay" and {kind for kind, _ in fake.ran} == {"run", "replay"}
    engine.close()


@pytest.mark.parametrize(
    "said",
    [
        "CUDA failure 2: out of memory ; GPU=0",
        "Failed to allocate memory for requested buffer of size 134217728",  # as seen on a device
        "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0",
    ],
)
def test_a_micro_batch_that_does_not_fit_is_halved(
    said: str, fake: FakeCuda, tiny_cuda: Path, embedder: Engine
) -> None:
    engine = Engine(open_artifact(tiny_cuda))
    many = TEXTS * 40
    fake.most_rows, fake.full = 50, said
    np.testing.assert_allclose(engine.embed(many), embedder.embed(many), atol=2e-6)
    rows = [shapes["input_ids"][0] for kind, shapes in fake.ran if kind == "run"]
    assert rows == [160, 80, 80]  # and then four of 40, which are replayed
    engine.close()


def test_a_text_that_does_not_fit_alone_is_an_error(fake: FakeCuda, tiny_cuda: Path) -> None:
    backend = CudaBackend(open_artifact(tiny_cuda), graphs=False)
    fake.most_rows = 0
    ids = np.full((4, 6), 7)
    feeds = {name: ids if name == "input_ids" else np.ones_like(ids) for name in INPUTS}
    with pytest.raises(DeviceOutOfMemory, match=r"one text does not fit: .* out of memory"):
        backend.run("main", feeds)
    rows = [shapes["input_ids"][0] for _, shapes in fake.ran]
    assert rows == [4, 2, 1]
    backend.close()


def test_without_room_to_record_short_texts_are_answered_all_the_same(
    fake: FakeCuda, tiny_cuda: Path, embedder: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    fake.no_recording = "Failed to allocate memory for requested buffer of size 768"
    engine = Engine(open_artifact(tiny_cuda))
    for _ in range(3):
        np.testing.assert_allclose(engine.embed(TEXTS), embedder.embed(TEXTS), atol=2e-6)
    assert [how for how, _ in fake.ran] == ["run"] * 3
    assert len(fake.sessions) == 1
    assert [record.message for record in caplog.records] == [
        "no memory is left for CUDA graphs: short texts are answered without"
    ]
    engine.close()


def test_a_recording_that_breaks_off_takes_the_others_with_it(
    fake: FakeCuda, tiny_cuda: Path, embedder: Engine
) -> None:
    """Their session's stream may be in the middle of it, and its weights' memory is wanted."""
    fake.no_room_for = "2"
    engine = Engine(open_artifact(tiny_cuda))
    for texts in (["a"], TEXTS, ["a"]):
        np.testing.assert_allclose(engine.embed(texts), embedder.embed(texts), atol=2e-6)
    hows = [how for how, _ in fake.ran]
    assert hows == ["replay"] * (len(hows) - 2) + ["run"] * 2
    engine.close()


def test_a_graph_that_cannot_be_recorded_whole_is_an_error(fake: FakeCuda, tiny_cuda: Path) -> None:
    """Its other operators would run on the CPU."""
    fake.no_recording = (
        "This session cannot use the graph capture feature as requested by the user as all compute "
        "graph nodes have not been partitioned to the CUDAExecutionProvider"
    )
    engine = Engine(open_artifact(tiny_cuda))
    with pytest.raises(BackendError, match="have not been partitioned to the CUDAExecution"):
        engine.embed(["a"])
    engine.close()


def test_while_a_model_is_opened_nothing_is_recorded_and_all_is_answered(
    fake: FakeCuda, tiny_cuda: Path
) -> None:
    engine = Engine(open_artifact(tiny_cuda))
    with turns.opening():
        engine.embed(["a"])
    assert [how for how, _ in fake.ran] == ["run"]
    engine.embed(["a"])
    assert {how for how, _ in fake.ran[1:]} == {"replay"}
    engine.close()


def test_while_kernels_are_recorded_nothing_is_opened(fake: FakeCuda, tiny_cuda: Path) -> None:
    with ThreadPoolExecutor(1) as threads:
        with turns.alone_unless_opening():
            opened = threads.submit(Engine, open_artifact(tiny_cuda))
            with pytest.raises(TimeoutError):
                opened.result(0.3)
            assert not fake.sessions
        opened.result(30).close()


def test_cuda_that_does_not_start_is_no_silent_cpu(fake: FakeCuda, tiny_cuda: Path) -> None:
    fake.works = False
    with pytest.raises(MissingDependency, match="CUDA does not start here"):
        Engine(open_artifact(tiny_cuda))


def test_what_cuda_does_not_start_without_is_said(
    fake: FakeCuda, tiny_cuda: Path, tmp_path: Path
) -> None:
    fake.works = False
    fake.__file__, _ = broken_provider(tmp_path)
    with pytest.raises(
        MissingDependency, match=r"start here: .*providers_cuda\.so: file too short"
    ):
        Engine(open_artifact(tiny_cuda))


# What ONNX Runtime 1.31.1 says with a driver's library that answers so.
PARSING = (
    "cuda_execution_provider_info.cc:63 [ONNXRuntimeError] : 1 : FAIL : "
    'provider_options_utils.h:187 Parse Failed to parse provider option "device_id": '
)


@pytest.mark.parametrize(
    ("said", "kind", "expected"),
    [
        (
            f"{PARSING}CUDA failure 35: CUDA driver version is insufficient for CUDA runtime "
            "version ; GPU=-1 ; hostname=a ; expr=cudaGetDeviceCount(&num_devices);",
            MissingDependency,
            "start here: CUDA driver version is insufficient for CUDA runtime version (CUDA "
            "error 35)",
        ),
        (
            f"{PARSING}CUDA failure 100: no CUDA-capable device is detected ; GPU=-1 ; line=70",
            MissingDependency,
            "start here: no CUDA-capable device is detected (CUDA error 100)",
        ),
        (
            f"{PARSING}Invalid device ID: 0, must be between 0 (inclusive) and 0 (exclusive).",
            InvalidOption,
            "device is cuda:0; this machine has 0 GPUs",
        ),
        (
            "CUDA failure 2: out of memory ; GPU=0 ; hostname=a ; file=b ; line=1 ; expr=c;",
            ArtifactIncompatible,
            "cannot load model.onnx on CUDAExecutionProvider: CUDA failure 2: out of memory",
        ),
    ],
)
def test_why_a_session_fails(
    fake: FakeCuda, tiny_cuda: Path, said: str, kind: type[Exception], expected: str
) -> None:
    fake.fails = said
    with pytest.raises(kind, match=re.escape(expected)):
        Engine(open_artifact(tiny_cuda))


def test_what_the_library_prints_while_loading_is_no_answer(
    fake: FakeCuda, tiny_cuda: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.prints = "Failed to load libcudnn.so.9"
    Engine(open_artifact(tiny_cuda))
    said = capsys.readouterr()
    assert fake.prints in said.err and not said.out


def test_threads_that_load_at_once_leave_standard_output_where_it_was(
    fake: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one enters before the first leaves, and leaves after it, if it may."""
    before, library = sys.stdout, cast("Any", fake)
    both_inside, first_left = threading.Event(), threading.Event()
    inside: list[int] = []

    def preload() -> None:
        inside.append(len(inside))
        if len(inside) == 1:
            both_inside.wait(0.3)
        else:
            both_inside.set()
            first_left.wait(10)

    def load() -> None:
        load_cuda(library)
        first_left.set()

    monkeypatch.setattr(fake, "preload_dlls", preload)
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(load) for _ in range(2)]:
            done.result()
    assert len(inside) == 2 and sys.stdout is before


def test_the_cpu_build_of_onnxruntime_is_refused(tiny_cuda: Path) -> None:
    with pytest.raises(MissingDependency, match=r'CPU build: .* pip install "poolc\[gpu\]"'):
        poolc.load(tiny_cuda)


def test_a_closed_engine(fake: FakeCuda, tiny_cuda: Path) -> None:
    backend = CudaBackend(open_artifact(tiny_cuda))
    backend.close()
    with pytest.raises(BackendError, match="the model was closed"):
        backend.run("main", {"input_ids": np.ones((1, 4), np.int64)})


def test_devices() -> None:
    assert [device_id(name) for name in (None, "cuda", "cuda:0", "cuda:3")] == [0, 0, 0, 3]
    for name in ("cpu", "cuda:x", "gpu"):
        with pytest.raises(InvalidOption, match=r"device is .*; an artifact for cuda runs on"):
            device_id(name)


def test_a_cpu_artifact_has_no_other_device(tiny_embedder: Path) -> None:
    with pytest.raises(InvalidOption, match="device is 'cuda'; this artifact is for the CPU"):
        poolc.load(tiny_embedder, device="cuda")


# The check on the device.


def test_the_first_load_on_a_device_checks_the_artifact(
    fake: FakeCuda, tiny_cuda: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert open_artifact(tiny_cuda).report()["parity"]["scope"] == "canonical-only"
    monkeypatch.setattr(first_load, "probe_gpu", lambda: Gpu(("NVIDIA L4, 23034 MiB, 580.1, 8.9",)))
    store = Store(tmp_path / "store")
    engine = Engine(open_artifact(tiny_cuda))
    first_load.complete(engine, store)
    assert len(fake.ran) >= 35  # the parity texts, one by one
    fake.ran.clear()
    first_load.complete(engine, store)
    assert not fake.ran  # remembered
    monkeypatch.setattr(first_load, "probe_gpu", lambda: Gpu(("NVIDIA L4, 23034 MiB, 581.0, 8.9",)))
    first_load.complete(engine, store)
    assert fake.ran  # another driver
    fake.ran.clear()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    first_load.complete(engine, store)
    assert fake.ran  # another device under the same number
    monkeypatch.setattr(first_load, "probe_gpu", Gpu)
    for _ in range(2):  # what cannot be named cannot be remembered
        fake.ran.clear()
        first_load.complete(engine, store)
        assert fake.ran
    engine.close()


@pytest.mark.parametrize("output_set", ["main", "tokens"])
def test_every_graph_is_checked_and_in_batches_too(
    fake: FakeCuda,
    tiny_cuda: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    output_set: str,
) -> None:
    engine = Engine(open_artifact(tiny_cuda))
    run = engine._backend.run

    def off(chosen: str, feeds: Any, **options: Any) -> Any:
        wrong = 2e-4 if chosen == output_set and len(feeds["input_ids"]) > 1 else 0
        return {name: values + wrong for name, values in run(chosen, feeds, **options).items()}

    monkeypatch.setattr(engine._backend, "run", off)
    with pytest.raises(ArtifactIncompatible, match=r"of text \d+ in a batch of \d\d differs by"):
        first_load.complete(engine, Store(tmp_path / "store"))
    engine.close()


def test_a_device_that_computes_nothing_serves_nothing(
    fake: FakeCuda, tiny_embedder_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zeros have a cosine of 0, which fp16 is held to, and no error that it is held to."""
    quiet: Callable[[dict[str, Any]], None] = lambda event: None  # noqa: E731
    made = poolc.compile(tiny_embedder_source, target="cuda", precision="fp16", on_event=quiet)
    engine = Engine(open_artifact(made.path))
    run = engine._backend.run

    def nothing(*args: Any, **options: Any) -> Any:
        return {name: np.zeros_like(values) for name, values in run(*args, **options).items()}

    monkeypatch.setattr(engine._backend, "run", nothing)
    with pytest.raises(ArtifactIncompatible, match=r"the cosine of .* is 0\.0"):
        first_load.complete(engine, Store(tmp_path / "store"))
    engine.close()


def test_each_of_several_devices_is_checked(
    fake: FakeCuda, tiny_cuda: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(open_artifact(tiny_cuda), device="cuda:0,cuda:0")
    second = engine.by_device()[1]._backend
    run = second.run

    def off(*args: Any, **options: Any) -> Any:
        return {name: values + 2e-4 for name, values in run(*args, **options).items()}

    monkeypatch.setattr(second, "run", off)
    with pytest.raises(ArtifactIncompatible, match="does not reproduce its ref"):
        first_load.complete(engine, Store(tmp_path / "store"))
    engine.close()


def test_a_device_that_computes_otherwise_serves_nothing(
    fake: FakeCuda, tiny_cuda: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(open_artifact(tiny_cuda))
    run = engine._backend.run

    def off(*args: Any, **options: Any) -> Any:
        return {name: values + 2e-4 for name, values in run(*args, **options).items()}

    monkeypatch.setattr(engine._backend, "run", off)
    store = Store(tmp_path / "store")
    for _ in range(2):  # a failure is not remembered as a success
        with pytest.raises(ArtifactIncompatible, match="does not reproduce its ref"):
            first_load.complete(engine, store)
    engine.close()
