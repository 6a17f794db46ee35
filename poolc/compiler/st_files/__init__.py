"""Sentence Transformers folders: modules.json and the configuration of each module.

Reads layouts of versions 2 to 6. A module that poolc does not know is refused by name: leaving one
out would change the vectors. Knows nothing about weights, and imports no torch.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from poolc.compiler.json_files import read_json
from poolc.compiler.st_files.chain import Router, SentenceTransformer, read_chain
from poolc.compiler.st_files.layers import activation
from poolc.compiler.st_files.model2vec import is_model2vec, read_model2vec
from poolc.compiler.st_files.modules import (
    MODULES_FILE,
    Module,
    native_modules,
    read_entries,
    read_modules,
)
from poolc.compiler.st_files.router import check_routes, find_router, read_router, route_modules

__all__ = [
    "Router",
    "SentenceTransformer",
    "activation",
    "module_paths",
    "native_modules",
    "read",
    "transformer_path",
]


def read(folder: Path) -> SentenceTransformer | None:
    """Read the folder; None where it has no modules.json and is not model2vec's either.

    Raises UnsupportedModel that names the file and the module or key.
    """
    if not (folder / MODULES_FILE).is_file():
        return read_model2vec(folder) if is_model2vec(folder) else None
    modules = read_modules(folder / MODULES_FILE)
    settings = read_json(folder / "config_sentence_transformers.json")
    place = find_router(modules)
    if place is None:
        return read_chain(folder, modules, settings)
    found = read_router(folder, modules[place])
    check_routes(found)
    chains = {
        route: read_chain(folder, route_modules(modules, place, found, route), settings)
        for route in found.used
    }
    main = chains.pop(found.main)
    router = Router(found.file, found.main, found.sides, found.has_default, chains)
    return replace(main, router=router)


def transformer_path(folder: Path) -> str:
    """Return the folder of config.json, the tokenizer and the weights, relative to the model's.

    Of a model with several routes, it is that of the main one.
    """
    if not (folder / MODULES_FILE).is_file():
        return ""
    entries = read_entries(folder / MODULES_FILE)
    if not any(entry["type"].endswith(".Router") for entry in entries):
        return str(entries[0]["path"])  # whatever class reads the text
    modules = read_modules(folder / MODULES_FILE)
    place = find_router(modules)
    if place is None:
        return modules[0].path
    found = read_router(folder, modules[place])
    return route_modules(modules, place, found, found.main)[0].path


def module_paths(folder: Path) -> list[str]:
    """Return the folders that hold modules, relative to the model's; [""] for a plain model."""
    if not (folder / MODULES_FILE).is_file():
        return [""]
    entries = read_entries(folder / MODULES_FILE)
    if not any(entry["type"].endswith(".Router") for entry in entries):
        return sorted({entry["path"] for entry in entries})
    modules = read_modules(folder / MODULES_FILE)
    place = find_router(modules)
    routed: list[Module] = []
    if place is not None:
        found = read_router(folder, modules[place])
        routed = [module for route in found.routes.values() for module in route]
    return sorted({module.path for module in [*modules, *routed]})
