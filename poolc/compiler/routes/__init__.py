"""Where a canonical graph comes from: one file a way, chosen by ``open_route``."""

from __future__ import annotations

from poolc.compiler.routes.base import Route
from poolc.spec import CompileOptions

__all__ = ["Route", "open_route"]


def open_route(options: CompileOptions) -> Route:
    """Return the way that ``options`` choose; imports torch for one of them only."""
    if options.from_onnx:
        from poolc.compiler.routes.shipped_onnx import ShippedOnnxRoute

        return ShippedOnnxRoute()
    from poolc.compiler.routes.pytorch import PytorchRoute

    return PytorchRoute()
