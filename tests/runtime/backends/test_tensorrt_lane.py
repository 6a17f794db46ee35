"""A lane of either library, over a graph that turns ids into numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, save

from poolc.compiler.targets.engine_builder import BuildSettings, build
from poolc.runtime.backends.cuda_device import OutOfMemoryError
from poolc.runtime.backends.tensorrt_contexts import Contexts
from poolc.runtime.backends.tensorrt_lane import Lane, Opened, Tensor
from poolc.runtime.backends.tensorrt_library import Heard, load_engine, messages
from poolc.runtime.profiles import Placement, parse_profiles
from tests.runtime.backends.fake_cudart import OUT_OF_MEMORY, FakeCudart
from tests.runtime.backends.fake_tensorrt import FakeTensorRT
from tests.runtime.backends.fake_tensorrt_rtx import FakeTensorRTRtx

TENSORS = (
    Tensor("ids", np.dtype(np.int32), ("batch", "seq"), is_input=True),
    Tensor("numbers", np.dtype(np.float32), ("batch", "seq"), is_input=False),
)
SMALL, LARGE = Placement(0, 1, 4, recorded=True), Placement(0, 8, 16, recorded=False)


@pytest.fixture
def cudart() -> FakeCudart:
    return FakeCudart()


@pytest.fixture
def opened(tmp_path: Path, cudart: FakeCudart) -> Callable[[Any], Opened]:
    ids = helper.make_tensor_value_info("ids", TensorProto.INT32, ["batch", "seq"])
    out = helper.make_tensor_value_info("numbers", TensorProto.FLOAT, ["batch", "seq"])
    node = helper.make_node("Cast", ["ids"], ["numbers"], to=TensorProto.FLOAT)
    graph = helper.make_graph([node], "numbers", [ids], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    save(model, tmp_path / "model.onnx")
    settings = BuildSettings(parse_profiles("batch=1..8,seq=1..16"))

    def make(trt: Any) -> Opened:
        plan = build(trt, tmp_path / "model.onnx", settings).plan
        _, engine = load_engine(trt, plan)
        heard = Heard(messages(trt))
        return Opened(trt, cudart, engine, TENSORS, heard.said, Contexts(trt, engine))  # type: ignore[arg-type]

    return make


def check(lane: Lane, place: Placement) -> None:
    ids = np.arange(place.rows * place.seq, dtype=np.int64).reshape(place.rows, place.seq)
    found = lane.run({"ids": ids}, place, place.rows)
    np.testing.assert_array_equal(found["numbers"], ids)


@pytest.mark.parametrize("kind", ["cudaMalloc", "cudaMallocHost"])
@pytest.mark.parametrize("fails", range(3))
def test_a_lane_without_room_to_grow_is_used_on(
    kind: str, fails: int, opened: Callable[[Any], Opened], cudart: FakeCudart
) -> None:
    """Whichever of its allocations it was, of buffers or of scratch memory."""
    lane = Lane(opened(FakeTensorRT(cudart)))
    check(lane, SMALL)
    lane.record()
    check(lane, SMALL)
    assert cudart.launches == 1
    with pytest.MonkeyPatch.context() as patch:
        real, calls = getattr(cudart, kind), iter(range(100))
        patch.setattr(
            cudart, kind, lambda size: (OUT_OF_MEMORY, 0) if next(calls) == fails else real(size)
        )
        if kind == "cudaMallocHost" and fails == 2:  # there are two buffers
            check(lane, LARGE)
        else:
            with pytest.raises(OutOfMemoryError):
                check(lane, LARGE)
    for place in (SMALL, LARGE, SMALL):
        check(lane, place)
    lane.record()
    check(lane, SMALL)
    assert cudart.launches == 2
    lane.close()
    assert (cudart.held, cudart.pinned) == (0, 0)


def test_what_is_released_is_made_again(
    opened: Callable[[Any], Opened], cudart: FakeCudart
) -> None:
    lane = Lane(opened(FakeTensorRT(cudart)))
    assert not lane.release()
    for _ in range(2):
        check(lane, SMALL)
        lane.record()
        check(lane, LARGE)
        assert lane.release()
        assert (cudart.held, cudart.pinned, cudart._graphs) == (0, 0, {})
    assert not lane.release()


def test_what_tensorrt_rtx_records_was_compiled_before_and_once(
    opened: Callable[[Any], Opened], cudart: FakeCudart
) -> None:
    trt = FakeTensorRTRtx(cudart)
    both = opened(trt)
    for lane in (Lane(both), Lane(both)):
        check(lane, LARGE)
        check(lane, SMALL)
        lane.record()
        check(lane, SMALL)
    assert cudart.launches == 2
    managed = trt.ExecutionContextAllocationStrategy.USER_MANAGED
    assert [made[:2] for made in trt.made] == [(managed, "lazy"), (managed, "eager")] * 2
    (cache,) = {made[2] for made in trt.made}
    assert cache is not None


def test_what_tensorrt_rtx_cannot_record_is_launched(
    opened: Callable[[Any], Opened], cudart: FakeCudart
) -> None:
    trt = FakeTensorRTRtx(cudart)
    trt.capturable = False
    lane = Lane(opened(trt))
    for _ in range(3):
        check(lane, SMALL)
        lane.record()
        assert not lane.has_to_record
    assert (cudart.recordings, cudart.launches) == (0, 0)
    # The first to be recorded, the others with a context for all shapes.
    assert [made[1] for made in trt.made] == ["eager", "lazy"]
