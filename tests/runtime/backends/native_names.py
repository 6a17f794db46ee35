"""Which names of NVIDIA's libraries poolc uses: read from its source, and from the fakes."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent.parent
HERE = Path(__file__).resolve().parent
_SOURCES = (
    *(ROOT / "poolc/runtime/backends").glob("tensorrt*.py"),
    ROOT / "poolc/runtime/backends/cuda_device.py",
    ROOT / "poolc/runtime/backends/cuda_weights.py",
    *(ROOT / "poolc/compiler/targets").glob("engine*.py"),
    ROOT / "poolc/bench/engine_peaks.py",
)


def listed(file: str) -> set[str]:
    """Return the committed names, each known to exist in the real library."""
    return set((HERE / file).read_text().split())


def used(module: str) -> set[str]:
    """Return what the source reads of ``trt`` or ``cudart``: A, or A.B, and names of calls."""
    found: set[str] = set()
    for path in _SOURCES:
        tree = ast.parse(path.read_text())
        inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and id(node) not in inner:
                found.update(_chain(node, module))
            if isinstance(node, ast.Call) and module == "cudart":
                found.update(_called(node))
    return found


def _chain(node: ast.Attribute, module: str) -> Iterator[str]:
    names: list[str] = []
    value: ast.expr = node
    while isinstance(value, ast.Attribute):
        names.insert(0, value.attr)
        value = value.value
    if isinstance(value, ast.Name):
        names.insert(0, value.id)
    places = [i for i, name in enumerate(names) if name in (module, f"_{module}")]
    after = names[places[-1] + 1 :] if places else []
    plain = list(itertools.takewhile(lambda name: not name.startswith("__"), after))
    if plain:
        yield ".".join(plain[:2])


def _called(node: ast.Call) -> Iterator[str]:
    """The name in ``call(cudart, "cudaMalloc", ...)``."""
    is_call = isinstance(node.func, ast.Name) and node.func.id == "call"
    if is_call and len(node.args) > 1 and isinstance(node.args[1], ast.Constant):
        yield str(node.args[1].value)
