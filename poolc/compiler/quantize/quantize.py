"""fp32 graph -> int8 graph: calibrate, choose a scheme for each group of products, leave the worst.

Nothing depends on what a text is batched with: scales are calibrated or each token's own. The
engine of the fp32 artifact prepares the texts, so that prompts, templates and sides are those that
requests get.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from poolc.compiler.comparison import Case
from poolc.compiler.events import Progress
from poolc.compiler.passes.quantize_linears import QuantizeLinearsPass
from poolc.compiler.quantize.calibration import collect, of_route, shipped_texts
from poolc.compiler.quantize.linears import Group, find_groups
from poolc.compiler.quantize.schemes import Activations, Choice, Scheme, choose
from poolc.compiler.quantize.sensitivity import Found, Trial, leave_worst
from poolc.errors import CompileError, TextTooLong
from poolc.model_cache.host import cpu_features
from poolc.runtime.backends.base import Feeds
from poolc.runtime.engine import Engine
from poolc.runtime.request import Item, TokenSequence
from poolc.spec import MAIN_SET, output_sets, set_route

# Integer dot products that add in 32 bits. Without one of them pairs of products saturate at 16
# bits on x86, so weights keep 7 bits there.
_DOT_PRODUCTS = ("avx512_vnni", "avx_vnni", "asimddp")
_HELD_OUT = 4  # every fourth text is not calibrated on, but measured


@dataclass(frozen=True, slots=True)
class Quantized:
    """Choices for each group by route, as the manifest has them too, and evidence (report)."""

    choices: Mapping[str, Mapping[str, Choice]]
    levels: int
    tuning: Mapping[str, Any]
    cpu_features: tuple[str, ...]  # that the weights' range counts on
    report: Mapping[str, Any] = field(default_factory=dict)

    def apply(self, graph: ir.Model, route: str) -> ir.Model:
        """Quantise the graph of a route in place; its products may have been packed."""
        return QuantizeLinearsPass(self.choices[route], self.levels)(graph).model


def quantize(
    graphs: Mapping[str, ir.Model],
    engine: Engine,
    cases: Sequence[Case],
    items: Sequence[Item] | None,
    progress: Progress,
) -> Quantized:
    """Choose how the trunk of every route's graph is quantised; ``engine`` is the fp32 artifact's.

    ``items`` are the user's, else the shipped texts, paired where ``cases`` ask for pairs.
    """
    feature = next((name for name in _DOT_PRODUCTS if name in cpu_features()), None)
    levels = 127 if feature else 63
    seen, held_out = _feeds(engine, cases, items)
    done, tuning, report = {}, {}, {}
    outputs = output_sets(engine.spec)[MAIN_SET]
    for route, graph in graphs.items():
        groups = find_groups(graph.graph)
        if not groups:
            raise CompileError("the model has no matrix product to quantise: compile it in fp32")
        activations = collect(graph, groups, of_route(seen, route))
        trial = Trial(graph, outputs, of_route(held_out, route), levels)
        found = _best(groups, activations, trial, levels)
        if not found.distance.is_close:
            progress.warn(
                f"int8: the mean cosine to fp32 is {found.distance.mean_cosine:.4f}, worst "
                f"{found.distance.worst_cosine:.4f}, with {found.share_left:.0%} of the weights "
                "left in fp32"
            )
        done[route] = found.choices
        name = route or "main"
        tuning[name] = {name: _chosen(choice) for name, choice in found.choices.items()}
        report[name] = _evidence(found)
    record = {"int8": {"levels": levels, "groups": tuning}}
    kernel = feature or "7-bit weights, no integer dot product"
    return Quantized(
        done,
        levels,
        record,
        (feature,) if feature else (),
        {
            "kernels": kernel,
            "calibrated_on": "the user's texts" if items else "shipped texts",
            "routes": report,
        },
    )


def _best(
    groups: Sequence[Group],
    activations: Mapping[str, Activations],
    trial: Trial,
    levels: int,
) -> Found:
    """Choose a scheme for each group; with scales for each token where that is not close enough.

    A calibrated scale is faster, a token's own holds for activations that nobody foresaw.
    """
    tried = []
    for schemes in ((Scheme.STATIC, Scheme.ROW), (Scheme.ROW,)):
        choices = {
            group.name: choose(activations[group.name], group.matrix, levels, schemes)
            for group in groups
        }
        tried.append(leave_worst(groups, choices, trial))
        if tried[-1].distance.is_close:
            break
    return min(tried, key=lambda found: found.distance.cost)


def _feeds(
    engine: Engine, cases: Sequence[Case], items: Sequence[Item] | None
) -> tuple[dict[str, list[Feeds]], dict[str, list[Feeds]]]:
    """Return micro-batches to calibrate on and to measure with, by route."""
    seen: dict[str, list[Feeds]] = {}
    held_out: dict[str, list[Feeds]] = {}
    for case in cases:
        texts = list(items) if items else _shaped(engine, shipped_texts(), case)
        # The gate's texts are odd on purpose: they widen the ranges.
        calibrated = [*(t for i, t in enumerate(texts) if i % _HELD_OUT), *case.items]
        for place, chosen in ((seen, calibrated), (held_out, texts[::_HELD_OUT])):
            prepared = engine.prepare(case.task, chosen, case.params)
            main = set_route(prepared.output_set)
            for batch in engine.plan(prepared.lengths):
                by_route: dict[str, list[TokenSequence]] = {}
                for sequence in (prepared.sequences[i] for i in batch.indices):
                    route = main if sequence.route is None else sequence.route
                    by_route.setdefault(route, []).append(sequence)
                for route, sequences in by_route.items():
                    place.setdefault(route, []).append(engine.feeds(sequences, route))
    return seen, held_out


def _shaped(engine: Engine, texts: Sequence[str], case: Case) -> list[Item]:
    """Return single texts where the case has such, and pairs where it has pairs.

    No library shortens texts inside a prompt, so pairs whose prompt is too long are left out.
    """
    shapes = {type(item) for item in case.items}
    found: list[Item] = list(texts) if str in shapes else []
    if tuple in shapes:
        pairs = [(text, texts[i - 1]) for i, text in enumerate(texts)]
        found += [pair for pair in pairs if _fits(engine, pair, case)]
    return found


def _fits(engine: Engine, item: Item, case: Case) -> bool:
    try:
        engine.check(case.task, [item], case.params)
    except TextTooLong:
        return False
    return True


def _chosen(choice: Choice) -> dict[str, Any]:
    plain: dict[str, Any] = {"scheme": choice.scheme.value}
    if choice.scheme is not Scheme.FP32:
        plain["alpha"] = choice.alpha
    return plain


def _evidence(found: Found) -> dict[str, Any]:
    kinds = [choice.scheme for choice in found.choices.values()]
    return {
        "mean_cosine": found.distance.mean_cosine,
        "worst_cosine": found.distance.worst_cosine,
        "error": found.distance.error,
        "schemes": {scheme.value: kinds.count(scheme) for scheme in Scheme},
        "errors": {name: round(choice.error, 5) for name, choice in found.choices.items()},
        "costs": {name: round(cost, 6) for name, cost in found.costs.items()},
    }
