"""The routes of an asymmetric model: which one a request takes, and how its texts are tokenised.

A model that is not asymmetric has one, called "".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from poolc.errors import InvalidOption
from poolc.model_cache.artifact import Artifact
from poolc.runtime.prompts import SIDES
from poolc.runtime.request import Params
from poolc.runtime.tokenize import Limits, TextTokenizer
from poolc.spec import TOKEN_TYPE_IDS, ModelSpec, Task


@dataclass(frozen=True, slots=True)
class Route:
    """What the texts of one route are tokenised with, and what its graphs take."""

    spec: ModelSpec
    tokenizer: TextTokenizer


def load_routes(artifact: Artifact) -> dict[str, Route]:
    """Load each route's tokenizer; routes with the same one share it in memory."""
    spec = artifact.manifest.spec
    others: Mapping[str, ModelSpec] = spec.router.others if spec.router else {}
    loaded: dict[tuple[str, Limits], TextTokenizer] = {}
    routes = {}
    for name, found in {"": spec, **others}.items():
        limits = Limits(
            found.max_length,
            found.vocab_size,
            TOKEN_TYPE_IDS in found.inputs,
            found.truncation_side,
            found.chars_per_token,
        )
        key = found.tokenizer, limits
        if key not in loaded:
            loaded[key] = TextTokenizer(artifact.file(found.tokenizer), limits)
        routes[name] = Route(found, loaded[key])
    return routes


def choose_route(spec: ModelSpec, task: Task, params: Params) -> str:
    """Return the route of a request, "" for the main one.

    Raises InvalidOption for a side that the model does not have, and for none where it must be
    named, as Sentence Transformers does.
    """
    side, router = params.side, spec.router
    sides = [*SIDES] if router is None else sorted(router.sides)
    if side is not None and side not in sides:
        raise InvalidOption(
            f"side is {side!r}; this model has: {', '.join(sides)}",
            param="side",
        )
    if router is None:
        return ""
    if side is None and not router.has_default:
        raise InvalidOption(
            f"this model has no default route for {task}: say which side the texts are of "
            f"with side ({', '.join(sides)}), as embed_query and embed_document do",
            param="side",
        )
    route = router.main if side is None else router.sides[side]
    return "" if route == router.main else route
