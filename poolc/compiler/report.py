"""What report.json says beside the parity: versions of the tools that compiled."""

from __future__ import annotations

import importlib.metadata
import platform

_TOOLS = (
    "poolc",
    "torch",
    "transformers",
    "sentence-transformers",
    "tokenizers",
    "onnx",
    "onnxscript",
    "onnx-ir",
    "onnxruntime",
    "onnxruntime-gpu",
    "numpy",
)


def tool_versions() -> dict[str, str]:
    """Return the version of every tool that is installed, Python's included."""
    versions = {"python": platform.python_version()}
    for name in _TOOLS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
