"""The Router module: which modules the texts of each side go through (Asym, in older versions).

Follows Sentence Transformers' rules for texts: a task's mapping, then a route of its name, then the
default route.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from poolc.compiler.json_files import read_json
from poolc.compiler.st_files.modules import (
    SPARSE_STATIC,
    Module,
    class_name,
    inside,
    without_dropout,
)
from poolc.errors import UnsupportedModel

_KINDS = ("Router", "Asym")
_FILES = ("router_config.json", "config.json")
_TEXT = "text"
_NAME = re.compile(r"[A-Za-z0-9_-]+")  # part of file names in the artifact
_SIDES = ("query", "document")

Mappings = Mapping[tuple[str | None, Any], str]


@dataclass(frozen=True, slots=True)
class Routes:
    """A Router's file: modules by route, and the route that texts of a side take."""

    file: str
    routes: Mapping[str, tuple[Module, ...]]
    sides: Mapping[str, str]
    main: str
    has_default: bool  # whether a text of no side takes the main route

    @property
    def used(self) -> list[str]:
        """The routes that texts can take."""
        return sorted({self.main, *self.sides.values()})


def find_router(modules: Sequence[Module]) -> int | None:
    """Return the place of the Router. Raises UnsupportedModel for several."""
    places = [place for place, module in enumerate(modules) if module.kind in _KINDS]
    if len(places) > 1:
        raise UnsupportedModel("modules.json has several Router modules; poolc reads one")
    return places[0] if places else None


def route_modules(modules: Sequence[Module], place: int, found: Routes, route: str) -> list[Module]:
    """Return the chain of a route: what stands before the Router, the route, what stands behind."""
    chain = [*modules[:place], *found.routes[route], *modules[place + 1 :]]
    if not chain:
        raise UnsupportedModel(f"{found.file}: route {route!r} names no modules")
    return chain


def read_router(folder: Path, module: Module) -> Routes:
    """Read a Router's file. Raises UnsupportedModel that names it and the key."""
    name, config = _config(folder, module.path)
    try:
        types, structure = dict(config["types"]), dict(config["structure"])
        routes = {
            str(route): tuple(without_dropout([_module(module, types, i, name) for i in ids]))
            for route, ids in structure.items()
        }
        parameters = dict(config.get("parameters") or {})
    except (KeyError, TypeError, ValueError) as error:
        raise UnsupportedModel(f"{name}: {type(error).__name__} {error}") from error
    _check_names(routes, name)
    mappings = _mappings(parameters.get("route_mappings"), routes, name)
    default = parameters.get("default_route")
    if default is not None and default not in routes:
        raise UnsupportedModel(
            f"{name}: default_route is {default!r}; its routes are: {', '.join(routes)}"
        )
    if default is None and parameters.get("allow_empty_key", True):
        default = next(iter(routes))
    asked = {*_SIDES, *routes, *(task for task, _ in mappings if task is not None)}
    resolved = {side: _resolve(side, routes, mappings) for side in sorted(asked)}
    sides = {side: route for side, route in resolved.items() if route is not None}
    default = _resolve(None, routes, mappings) or default
    main = default or sides.get("document") or next(iter(routes))
    return Routes(name, routes, sides, main, default is not None)


def check_routes(found: Routes) -> None:
    """Refuse routes that weigh tokens without a model, and say what can be done.

    Raises UnsupportedModel.
    """
    for name, route in found.routes.items():
        tables = [module.path for module in route if module.kind == SPARSE_STATIC]
        if not tables:
            continue
        others = [one for one in found.used if one != name]
        modules = [module.path for one in others[:1] for module in found.routes[one]]
        alone = (
            f": to compile route {others[0]!r} alone, copy the folder and list in modules.json, "
            f"instead of the Router, {' and '.join(modules)}; weights of tokens need no model: "
            f"they are in {tables[0]}"
            if others
            else ""
        )
        raise UnsupportedModel(
            f"{found.file}: route {name!r} is a {SPARSE_STATIC} module, a table of one weight a "
            f"token, which poolc does not compile{alone}"
        )


def _config(folder: Path, path: str) -> tuple[str, dict[str, Any]]:
    for file in _FILES:
        config = read_json(folder / path / file)
        if "structure" in config:
            return (PurePosixPath(path) / file).as_posix(), config
    where = (PurePosixPath(path) / _FILES[0]).as_posix()
    raise UnsupportedModel(f"{where} is missing, which modules.json names")


def _module(router: Module, types: Mapping[str, Any], name: Any, file: str) -> Module:
    kind = class_name(str(types[name]), file)
    if kind in _KINDS:
        raise UnsupportedModel(f"{file} has a Router in a Router, which poolc does not compile")
    return Module(kind, (PurePosixPath(router.path) / inside(str(name))).as_posix())


def _check_names(routes: Mapping[str, Any], file: str) -> None:
    if not routes:
        raise UnsupportedModel(f"{file}: structure names no routes")
    for route in routes:
        if not _NAME.fullmatch(route):
            raise UnsupportedModel(
                f"{file}: a route is called {route!r}; poolc takes letters, digits, _ and -"
            )


def _mappings(given: Any, routes: Mapping[str, Any], file: str) -> Mappings:
    """Read route_mappings, whose keys are Python tuples as text: "('query', 'text')"."""
    found: dict[tuple[str | None, Any], str] = {}
    for key, route in dict(given or {}).items():
        try:
            task, modality = ast.literal_eval(key)
        except (ValueError, SyntaxError, TypeError) as error:
            raise UnsupportedModel(
                f"{file}: route_mappings has the key {key!r}: {error}"
            ) from error
        if route not in routes:
            raise UnsupportedModel(
                f"{file}: route_mappings names {route!r}; its routes are: {', '.join(routes)}"
            )
        found[task, modality] = route
    return found


def _resolve(side: str | None, routes: Mapping[str, Any], mappings: Mappings) -> str | None:
    for key in ((side, _TEXT), (side, None), (None, _TEXT), (None, None)):
        if key in mappings:
            return mappings[key]
    if side in routes:
        return side
    return _TEXT if _TEXT in routes else None
