"""``poolc doctor`` prints what the probe found."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from poolc.runtime import probe as probing
from poolc.runtime.probe import Gpu, OnnxRuntime, Provider, probe
from poolc.runtime.probe_engines import Library
from tests.cli.conftest import Cli


def test_doctor_of_this_machine(cli: Cli) -> None:
    ran = cli("doctor")
    assert ran.code == 0, ran.err
    assert "CPUExecutionProvider: loads and computes" in ran.out
    assert ("nothing is missing" in ran.out) == (not probe().advice)


def test_nothing_is_missing(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    found = replace(probe(), advice=())
    monkeypatch.setattr(probing, "probe", lambda: found)
    assert cli("doctor").out.endswith("\nnothing is missing\n")


def test_doctor_as_json(cli: Cli) -> None:
    shown = json.loads(cli("doctor", "--json").out)
    assert shown["machine"]["allowed_cores"] >= 1
    assert {"name": "CPUExecutionProvider", "problem": None} in shown["onnxruntime"]["providers"]


def test_problems_and_advice_are_printed(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    found = replace(
        probe(),
        onnxruntime=OnnxRuntime("1.24.0", (Provider("CUDAExecutionProvider", "no driver"),)),
        gpu=Gpu(("NVIDIA H100, 81559 MiB, 570.1, 9.0",)),
        libraries={"tensorrt": Library("11.4")},
        packages={"compile": {"torch": None}},
        advice=('to compile models (missing torch): pip install "poolc[compile]"',),
    )
    monkeypatch.setattr(probing, "probe", lambda: found)
    printed = cli("doctor").out
    for expected in (
        "onnxruntime   1.24.0\n",
        "CUDAExecutionProvider: no driver",
        "gpu           NVIDIA H100, 81559 MiB",
        "tensorrt      11.4",
        "compile       torch MISSING",
        'missing:\n  to compile models (missing torch): pip install "poolc[compile]"\n',
    ):
        assert expected in printed


@pytest.mark.parametrize(
    ("version", "line"), [(None, "not installed"), ("1.31.1", "1.31.1 cannot be used")]
)
def test_onnxruntime_that_cannot_be_used(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, version: str | None, line: str
) -> None:
    broken = OnnxRuntime(version, problem="not there")
    found = replace(probe(), onnxruntime=broken, advice=("not there",))
    monkeypatch.setattr(probing, "probe", lambda: found)
    printed = cli("doctor").out
    assert f"onnxruntime   {line}\n" in printed
    assert "  not there\n" in printed
