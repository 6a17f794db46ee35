"""Every name of TensorRT and CUDA that the code and its fakes use is one of the real libraries'."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.runtime.backends import fake_cudart, fake_tensorrt, fake_tensorrt_rtx
from tests.runtime.backends.fake_cudart import FakeCudart
from tests.runtime.backends.fake_tensorrt import FakeTensorRT
from tests.runtime.backends.fake_tensorrt_rtx import FakeTensorRTRtx
from tests.runtime.backends.native_names import listed, used

# What a fake has beside the library's names: its own state and what tests steer it by.
_OWN = {
    "ICudaEngine": {"fail", "compute"},
    "IRuntimeConfig": {"record"},
    "FakeCudart": {"held", "pinned", "compute", "block"},
}
_STUBBED = {
    "libnvinfer.so.11": (
        *("createInferBuilder_INTERNAL", "createInferRuntime_INTERNAL"),
        *("createInferRefitter_INTERNAL", "getPluginRegistry", "getBuilderPluginRegistry"),
    ),
    "libnvinfer_plugin.so.11": ("initLibNvInferPlugins",),
    "libnvonnxparser.so.11": (
        *("createNvOnnxParser_INTERNAL", "createNvOnnxParserRefitter_INTERNAL"),
        "getNvOnnxParserVersion",
    ),
}


def public(made: type) -> set[str]:
    return {name for name in vars(made) if not name.startswith("_")}


@pytest.mark.parametrize(
    ("fake", "module", "files", "least"),
    [
        (fake_tensorrt, FakeTensorRT, ["tensorrt_names.txt"], 10),
        (fake_tensorrt_rtx, FakeTensorRTRtx, ["tensorrt_names.txt", "tensorrt_rtx_names.txt"], 4),
    ],
)
def test_fakes_of_tensorrt_have_no_name_that_the_library_lacks(
    fake: ModuleType, module: type, files: list[str], least: int
) -> None:
    names = set().union(*(listed(file) for file in files))
    classes = [
        made
        for _, made in inspect.getmembers(fake, inspect.isclass)
        if made.__module__ == fake.__name__ and made is not module
    ]
    assert len(classes) >= least
    for made in classes:
        own = _OWN.get(made.__name__, set())
        assert not {f"{made.__name__}.{name}" for name in public(made) - own} - names
    modules = {name.split(".")[0] for name in names}
    assert public(module) <= modules


def test_fakes_of_cuda_have_no_name_that_the_library_lacks() -> None:
    names = listed("cuda_names.txt")
    assert public(FakeCudart) - _OWN["FakeCudart"] <= {name.split(".")[0] for name in names}
    made: Any
    for name, made in vars(FakeCudart).items():
        if hasattr(made, "__dict__") and name.startswith("cuda") and not callable(made):
            assert {f"{name}.{one}" for one in vars(made)} <= names
    assert fake_cudart.SUCCESS == 0


def test_the_code_uses_names_that_are_listed() -> None:
    names = listed("tensorrt_names.txt") | listed("tensorrt_rtx_names.txt")
    known = names | {name.split(".")[0] for name in names}
    of_trt = used("trt")
    assert "BuilderFlag.TF32" in of_trt and len(of_trt) > 8
    assert not of_trt - known
    cuda = listed("cuda_names.txt")
    of_cuda = used("cudart")
    assert "cudaMalloc" in of_cuda and len(of_cuda) > 12
    assert not of_cuda - cuda - {name.split(".")[0] for name in cuda}


@pytest.mark.slow
def test_names_are_those_of_tensorrt_rtx() -> None:
    trt = pytest.importorskip("tensorrt_rtx_bindings")
    assert not missing(trt, listed("tensorrt_names.txt") | listed("tensorrt_rtx_names.txt"))
    assert trt.IRuntimeConfig.dynamic_shapes_kernel_specialization_strategy.fset is not None
    # Made with a strategy or with a configuration, by whichever is given.
    overloads = trt.ICudaEngine.create_execution_context.__doc__
    assert "runtime_config: tensorrt_rtx_bindings.tensorrt_rtx.IRuntimeConfig" in overloads


@pytest.mark.slow
def test_names_are_those_of_tensorrt(tmp_path: Path) -> None:
    """The real bindings of TensorRT 11, over empty libraries: no GPU and no builder is needed."""
    if importlib.util.find_spec("tensorrt_bindings") is None:
        pytest.skip("the bindings of TensorRT are not installed")
    trt = bindings_over_stubs(tmp_path)
    assert trt.__version__.startswith("11.")
    assert not missing(trt, listed("tensorrt_names.txt"))
    # What contexts of TensorRT-RTX are made with is asked for where it is there.
    assert not hasattr(trt, "DynamicShapesKernelSpecializationStrategy")
    # Builders and runtimes are made by the libraries, of which there are only empty ones.
    with pytest.raises(TypeError, match="nullptr"):
        trt.Builder(trt.Logger())


@pytest.mark.slow
def test_names_are_those_of_cuda() -> None:
    cudart = pytest.importorskip("cuda.bindings.runtime")
    assert not missing(cudart, listed("cuda_names.txt"))


def missing(module: ModuleType, names: set[str]) -> set[str]:
    def has(name: str) -> bool:
        value: Any = module
        for part in name.split("."):
            if not hasattr(value, part):
                return False
            value = getattr(value, part)
        return True

    return {name for name in names if not has(name)}


def bindings_over_stubs(folder: Path) -> ModuleType:
    """Import TensorRT's bindings over libraries that have their symbols and return nothing."""
    import ctypes

    for library, symbols in _STUBBED.items():
        source = folder / f"{library}.c"
        source.write_text("".join(f"void* {name}() {{ return 0; }}\n" for name in symbols))
        made = folder / library
        command = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{library}", "-o", made, source]
        subprocess.run([str(part) for part in command], check=True)
        ctypes.CDLL(str(made), mode=ctypes.RTLD_GLOBAL)
    return importlib.import_module("tensorrt_bindings")
