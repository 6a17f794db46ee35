"""Which machines run an engine, and that options of engines change no other request's key."""

from __future__ import annotations

from dataclasses import replace

import pytest

from poolc.model_cache.host import EngineHost, built_on_the_same, engine_problem
from poolc.model_cache.manifest import EngineRequires
from poolc.model_cache.requests import recorded_options
from poolc.spec import ENGINE_OPTIONS, CompileOptions

BUILT = EngineRequires("tensorrt", "11.4.0.106", ("9.0",), gpu="NVIDIA H200", driver="13.1")
SAME = EngineHost("11.4.0.106", "9.0", "NVIDIA H200", "13.1")
RTX = EngineRequires("tensorrt_rtx", "1.7.1.116", ("8.9", "12.0"))
CARD = EngineHost("1.7.1.116", "12.0", "NVIDIA GeForce RTX 5090", "13.2")


@pytest.mark.parametrize(
    ("requires", "here"),
    [
        (BUILT, SAME),
        (replace(BUILT, version_compatible=True), replace(SAME, version="11.6.1.2")),
        (
            replace(BUILT, hardware_compatibility="same-compute-capability"),
            replace(SAME, gpu="NVIDIA H100"),
        ),
        (
            replace(BUILT, hardware_compatibility="ampere-plus"),
            replace(SAME, gpu="NVIDIA B200", compute_capability="10.0"),
        ),
        (RTX, CARD),
        (BUILT, replace(SAME, driver="13.2")),
        (BUILT, replace(SAME, driver="13.0")),  # of one major version of CUDA
        (BUILT, replace(SAME, driver="14.0")),
    ],
)
def test_engine_runs(requires: EngineRequires, here: EngineHost) -> None:
    assert engine_problem(requires, here) is None


@pytest.mark.parametrize(
    ("requires", "here", "said"),
    [
        (BUILT, replace(SAME, version="11.4.1.1"), "built by tensorrt 11.4.0.106, and 11.4.1.1 is"),
        (
            replace(BUILT, version_compatible=True),
            replace(SAME, version="11.3.0.5"),
            "and 11.3.0.5 is installed",
        ),
        (
            replace(BUILT, version_compatible=True),
            replace(SAME, version="12.0.0.1"),
            "and 12.0.0.1 is installed",
        ),
        (BUILT, replace(SAME, gpu="NVIDIA H100"), "for NVIDIA H200, and this GPU is NVIDIA H100"),
        (BUILT, replace(SAME, driver="12.9"), "a driver for CUDA 13.1, and this one is for 12.9"),
        (
            replace(BUILT, hardware_compatibility="ampere-plus"),
            replace(SAME, compute_capability="7.5"),
            "has 7.5",
        ),
        (RTX, replace(CARD, compute_capability="8.6"), "compute capability 8.9 or 12.0, and this"),
    ],
)
def test_engine_does_not_run(requires: EngineRequires, here: EngineHost, said: str) -> None:
    assert said in str(engine_problem(requires, here))


@pytest.mark.parametrize(
    ("requires", "here", "same"),
    [
        (BUILT, SAME, True),
        (BUILT, replace(SAME, driver="13.2"), False),
        (BUILT, replace(SAME, gpu="NVIDIA H100"), False),
        (replace(BUILT, version_compatible=True), replace(SAME, version="11.5.0.1"), False),
        (RTX, CARD, False),  # it does not say which card compared it
    ],
)
def test_what_was_compared_holds_on_such_a_machine_alone(
    requires: EngineRequires, here: EngineHost, same: bool
) -> None:
    assert built_on_the_same(requires, here) is same


def test_options_of_engines_change_no_other_request() -> None:
    """Artifacts that were compiled before there were engines are found again."""
    assert not set(ENGINE_OPTIONS) & recorded_options(CompileOptions()).keys()
    asked = recorded_options(CompileOptions(profiles="batch=1,seq=8", version_compatible=True))
    assert (asked["profiles"], asked["version_compatible"]) == ("batch=1,seq=8", True)
