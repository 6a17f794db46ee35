"""Where a canonical graph comes from: one file a way, chosen by ``open_frontend``."""

from __future__ import annotations

from poolc.compiler.frontends.base import Frontend
from poolc.spec import CompileOptions

__all__ = ["Frontend", "open_frontend"]


def open_frontend(options: CompileOptions) -> Frontend:
    """Return the way that ``options`` choose; imports torch for one of them only."""
    if options.from_onnx:
        from poolc.compiler.frontends.shipped_onnx import ShippedOnnxFrontend

        return ShippedOnnxFrontend()
    from poolc.compiler.frontends.pytorch import PytorchFrontend

    return PytorchFrontend()
