"""``import poolc``: every name that it promises, and nothing that costs time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import poolc

ROOT = Path(__file__).resolve().parent.parent
HEAVY = {"torch", "transformers", "onnxruntime", "onnx", "numpy", "tokenizers", "fastapi", "rich"}


def loaded_by(statement: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter holds after ``statement``."""
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("name", poolc.__all__)
def test_every_exported_name_is_there(name: str) -> None:
    assert getattr(poolc, name) is not None


def test_exported_names_are_listed() -> None:
    assert len(poolc.__all__) == len(set(poolc.__all__))
    assert set(dir(poolc)) >= set(poolc.__all__)


def test_exports_hold_the_public_functions_and_types() -> None:
    promised = {"compile", "load", "Engine", "LLM", "PoolingParams", "CompileOptions", "PoolcError"}
    promised |= {"PoolerConfig"}
    results = {"Classification", "HybridVectors", "Ragged", "Span", "SparseVectors"}
    assert promised | results | {"__version__"} <= set(poolc.__all__)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'embed_everything'"):
        _ = poolc.embed_everything


def test_import_poolc_loads_nothing_heavy() -> None:
    assert not loaded_by("import poolc") & HEAVY


def test_public_types_load_no_compiler() -> None:
    loaded = loaded_by("from poolc import LLM, Engine, PoolingParams, load")
    assert not loaded & {"torch", "transformers", "onnx", "onnxscript"}
