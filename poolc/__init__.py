"""poolc compiles pooling models ahead of time and runs them without PyTorch.

    import poolc

    engine = poolc.load("sentence-transformers/all-MiniLM-L6-v2")  # compiled on first use
    vectors = engine.embed(["a text", "another"])  # float32 [2, 384]

Names are imported when first used, so that ``import poolc`` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from poolc import bulk, ray
    from poolc.api import CompileResult, compile, load
    from poolc.errors import PoolcError
    from poolc.llm import LLM, PoolerConfig, PoolingParams
    from poolc.runtime.engine import Engine
    from poolc.runtime.heads.hybrid import HybridVectors
    from poolc.runtime.outputs import Classification, Ragged, Span
    from poolc.runtime.sparse import SparseVectors
    from poolc.spec import CompileOptions

__version__ = "0.1.0"

__all__ = [
    "LLM",
    "Classification",
    "CompileOptions",
    "CompileResult",
    "Engine",
    "HybridVectors",
    "PoolcError",
    "PoolerConfig",
    "PoolingParams",
    "Ragged",
    "Span",
    "SparseVectors",
    "__version__",
    "bulk",
    "compile",
    "load",
    "ray",
]

_MODULES = ("bulk", "ray")
_HOMES = {
    "HybridVectors": "poolc.runtime.heads.hybrid",
    "LLM": "poolc.llm",
    "Classification": "poolc.runtime.outputs",
    "CompileOptions": "poolc.spec",
    "CompileResult": "poolc.api",
    "Engine": "poolc.runtime.engine",
    "PoolcError": "poolc.errors",
    "PoolerConfig": "poolc.llm",
    "PoolingParams": "poolc.llm",
    "Ragged": "poolc.runtime.outputs",
    "Span": "poolc.runtime.outputs",
    "SparseVectors": "poolc.runtime.sparse",
    "compile": "poolc.api",
    "load": "poolc.api",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"poolc.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'poolc' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
