"""Asymmetric models: the routes of a Router, each recognised by itself, as one model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from poolc.compiler.recognize.context import Recognized, Route
from poolc.compiler.st_files import Router
from poolc.compiler.tokenizer import tokenizer_json
from poolc.errors import InvalidOption, UnsupportedModel
from poolc.spec import CompileOptions, Kind, LayerKind, LayerSpec, ModelSpec, RouterSpec, Task


def join_routes(
    router: Router, main: Route, others: Mapping[str, Route], options: CompileOptions
) -> Recognized:
    """Return the main route's model with the others in it.

    Raises UnsupportedModel where their vectors cannot be compared, and InvalidOption.
    """
    routes = {router.main: main, **others}
    _check(router, routes, options)
    scores = {"query", "document"} <= router.sides.keys()
    specs = {
        name: _comparable(route.recognized.spec, routes, scores=scores)
        for name, route in routes.items()
    }
    words = tokenizer_json(main.tokenizer)
    for name, route in others.items():
        if tokenizer_json(route.tokenizer) != words:
            specs[name] = replace(specs[name], tokenizer=f"tokenizer@{name}.json")
    spec = specs.pop(router.main)
    origin = f"{router.file}: route {router.main}"
    return replace(
        main.recognized,
        spec=replace(
            spec,
            router=RouterSpec(router.main, router.sides, router.has_default, specs),
            origins={**spec.origins, "router": origin},
        ),
        routes={
            name: replace(route, recognized=replace(route.recognized, spec=specs[name]))
            for name, route in others.items()
        },
    )


def _check(router: Router, routes: Mapping[str, Route], options: CompileOptions) -> None:
    folders = {route.recognized.transformer for route in routes.values()}
    if options.tokenizer is not None and len(folders) > 1:
        raise InvalidOption(
            f"tokenizer replaces one, but the routes of {router.file} have one each",
            param="tokenizer",
        )
    kinds = {route.recognized.spec.kind for route in routes.values()}
    if kinds != {Kind.EMBEDDING}:
        raise UnsupportedModel(
            f"{router.file}: poolc compiles routes that end in one vector a text; these are: "
            f"{', '.join(sorted(kinds))}"
        )
    sizes = {name: _spec(route).embedding_size for name, route in routes.items()}
    if len(set(sizes.values())) > 1:
        given = ", ".join(f"{size} numbers ({name})" for name, size in sizes.items())
        raise UnsupportedModel(
            f"{router.file}: the routes give vectors of {given}, which cannot be compared"
        )


def _spec(route: Route) -> ModelSpec:
    return route.recognized.spec


def _comparable(spec: ModelSpec, routes: Mapping[str, Route], *, scores: bool) -> ModelSpec:
    """Normalise in the chain where only some routes do; leave scores out without ``scores``.

    A score compares a query with a document, so the model needs a route for each.
    """
    tasks = tuple(task for task in spec.tasks if scores or task is not Task.SCORE)
    if spec.normalize and not all(_spec(route).normalize for route in routes.values()):
        size = spec.embedding_size or 0
        unit = LayerSpec("", size, size, kind=LayerKind.NORMALIZE)
        spec = replace(spec, normalize=False, layers=(*spec.layers, unit))
    return replace(spec, tasks=tasks)
