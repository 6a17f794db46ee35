"""A GPU and the libraries of engines, put into this process."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import pytest

from tests.runtime.backends.fake_cudart import FakeCudart
from tests.runtime.backends.fake_tensorrt import FakeTensorRT


@dataclass(frozen=True, slots=True)
class Fakes:
    trt: FakeTensorRT
    cudart: FakeCudart


def install(patch: pytest.MonkeyPatch, **settings: Any) -> Fakes:
    """Put a GPU and its libraries into this process."""
    cudart = FakeCudart()
    trt = FakeTensorRT(cudart, **settings)
    patch.setitem(sys.modules, "tensorrt", trt)
    patch.setitem(sys.modules, "cuda.bindings.runtime", cudart)
    return Fakes(trt, cudart)
