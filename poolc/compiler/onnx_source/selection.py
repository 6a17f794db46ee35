"""Which files of a model are read from ONNX."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePath

from poolc.compiler.hub import wanted
from poolc.errors import MissingDependency, UnsupportedModel
from poolc.model_cache.requests import has_torch
from poolc.model_cache.source_files import onnx_graph, onnx_weights
from poolc.spec import CompileOptions


def select(model: str, options: CompileOptions, names: Iterable[str]) -> list[str]:
    """Return the files of a repository that a compile with ``options`` reads.

    Raises what ``check_shipped`` raises.
    """
    names = list(names)
    if options.from_onnx:
        check_shipped(model, (PurePath(name) for name in names))
    return wanted(names, trust_remote_code=options.trust_remote_code, from_onnx=options.from_onnx)


def follow(folder: Path, names: Iterable[str]) -> list[str]:
    """Return the files, among ``names``, that hold the weights of the graph in ``folder``."""
    present = set(names)
    graph = onnx_graph(present)
    return [name for name in onnx_weights(folder, graph) if name in present] if graph else []


def check_shipped(model: str, paths: Iterable[PurePath]) -> None:
    """Refuse a model that ships no graph, or only variants of one, which compute something else.

    Raises UnsupportedModel, or MissingDependency where PyTorch, the other way, is not there either.
    """
    names = sorted(path.as_posix() for path in paths)
    if onnx_graph(names):
        return
    variants = [name for name in names if name.endswith(".onnx")]
    shown = f" (only {', '.join(variants[:3])}, which are other variants)" if variants else ""
    problem = f"{model} ships no onnx/model.onnx or model.onnx{shown}"
    if has_torch():
        raise UnsupportedModel(f"{problem}: compile its weights, without --from-onnx")
    raise MissingDependency(
        f"{problem}, and its weights need PyTorch, which is not installed: "
        'pip install "poolc[compile,cpu]"'
    )
