"""fp32 graph -> int8 or fp8: calibrate, choose a scheme for each group of products, leave some.

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
from poolc.compiler.quantize.calibration import collect, of_route, shipped_texts
from poolc.compiler.quantize.formats import Format
from poolc.compiler.quantize.linears import Group, find_groups
from poolc.compiler.quantize.schemes import Activations, Choice, Scheme
from poolc.compiler.quantize.sensitivity import Found, Trial, leave_worst
from poolc.errors import CompileError, TextTooLong
from poolc.runtime.backends.base import Feeds
from poolc.runtime.engine import Engine
from poolc.runtime.request import Item, TokenSequence
from poolc.spec import MAIN_SET, Precision, output_sets, set_route

QUANTIZED = (Precision.INT8, Precision.FP8)
_HELD_OUT = 4  # every fourth text is not calibrated on, but measured


@dataclass(frozen=True, slots=True)
class Texts:
    """What is calibrated on: the user's items, else the shipped texts, paired where ``cases``, the
    gate's, ask for pairs.
    """

    cases: Sequence[Case]
    items: Sequence[Item] | None = None


@dataclass(frozen=True, slots=True)
class Quantized:
    """Choices for each group by route, as the manifest has them too, and evidence (report)."""

    form: Format
    choices: Mapping[str, Mapping[str, Choice]]
    tuning: Mapping[str, Any]
    report: Mapping[str, Any] = field(default_factory=dict)

    def apply(self, graph: ir.Model, route: str) -> ir.Model:
        """Quantise the graph of a route in place; its products may have been packed."""
        return self.form.rewrite(self.choices[route])(graph).model


def quantize(
    graphs: Mapping[str, ir.Model], engine: Engine, texts: Texts, form: Format, progress: Progress
) -> Quantized:
    """Choose how the trunk of every route's graph is quantised; ``engine`` is the fp32 artifact's.

    Raises CompileError for a graph without products, or of an opset without the format.
    """
    seen, held_out = _feeds(engine, texts)
    done, groups_of, report = {}, {}, {}
    outputs = output_sets(engine.spec)[MAIN_SET]
    for route, graph in graphs.items():
        groups = find_groups(graph.graph)
        if not groups:
            raise CompileError("the model has no matrix product to quantise: compile it in fp32")
        activations = collect(graph, groups, of_route(seen, route))
        trial = Trial(graph, outputs, of_route(held_out, route), form.rewrite)
        found = _best(groups, activations, trial, form)
        if not found.distance.is_close:
            _warn(found, form, progress)
        done[route] = found.choices
        name = route or "main"
        groups_of[name] = {name: _chosen(one, form) for name, one in found.choices.items()}
        report[name] = _evidence(found, form)
    origin = "the user's texts" if texts.items else "shipped texts"
    return Quantized(
        form,
        done,
        {form.precision.value: {**form.record, "groups": groups_of}},
        {"kernels": form.kernels, "calibrated_on": origin, "routes": report},
    )


def _warn(found: Found, form: Format, progress: Progress) -> None:
    progress.warn(
        f"{form.precision}: the mean cosine to fp32 is {found.distance.mean_cosine:.4f}, worst "
        f"{found.distance.worst_cosine:.4f}, with {found.share_left:.0%} of the weights left in "
        f"{form.rest}"
    )


def _best(
    groups: Sequence[Group], activations: Mapping[str, Activations], trial: Trial, form: Format
) -> Found:
    """Choose a scheme for each group, by the next of the attempts where that is not close enough.

    int8 has scales for each token then.
    """
    tried = []
    for choose in form.attempts:
        choices = {group.name: choose(activations[group.name], group.matrix) for group in groups}
        tried.append(leave_worst(groups, choices, trial))
        if tried[-1].distance.is_close:
            break
    return min(tried, key=lambda found: found.distance.cost)


def _feeds(engine: Engine, given: Texts) -> tuple[dict[str, list[Feeds]], dict[str, list[Feeds]]]:
    """Return micro-batches to calibrate on and to measure with, by route."""
    seen: dict[str, list[Feeds]] = {}
    held_out: dict[str, list[Feeds]] = {}
    for case in given.cases:
        texts = list(given.items) if given.items else _shaped(engine, shipped_texts(), case)
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


def _chosen(choice: Choice, form: Format) -> dict[str, Any]:
    if choice.scheme is Scheme.FP32:
        return {"scheme": form.rest.value}
    if form.precision is Precision.FP8:
        return {"scheme": choice.scheme.value, "scale": choice.scale}
    return {"scheme": choice.scheme.value, "alpha": choice.alpha}


def _evidence(found: Found, form: Format) -> dict[str, Any]:
    kinds = [choice.scheme for choice in found.choices.values()]
    names = {scheme: scheme.value for scheme in Scheme} | {Scheme.FP32: form.rest.value}
    return {
        "mean_cosine": found.distance.mean_cosine,
        "worst_cosine": found.distance.worst_cosine,
        "error": found.distance.error,
        "schemes": {name: kinds.count(scheme) for scheme, name in names.items()},
        "errors": {name: round(choice.error, 5) for name, choice in found.choices.items()},
        "costs": {name: round(cost, 6) for name, cost in found.costs.items()},
    }
