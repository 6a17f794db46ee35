"""The parity gate: the artifact, run through the real runtime, against the reference.

Nothing is published that does not pass. Bounds are those of docs/parity.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from poolc.compiler.comparison import Case, Reference
from poolc.errors import ParityError, TokenizerError
from poolc.runtime import heads
from poolc.runtime.bounds import BOUNDS, Bounds, Cosines
from poolc.runtime.engine import Engine
from poolc.runtime.outputs import Float32, Ragged
from poolc.runtime.request import Item, Prepared, Row
from poolc.spec import SPARSE_VALUES, TOKEN_LOGITS, Precision, route_spec, set_route


@dataclass(slots=True)
class Parity:
    """What was compared and how far off it was; goes into report.json."""

    reference: str
    texts: int
    longest_tokens: int
    bound: float
    token_ids_equal: bool = True
    max_abs_error: float = 0.0
    max_relative_error: float = 0.0  # |a - b| / max(1, max |reference|): what the bound limits
    worst_cosine: float | None = None
    mean_cosine: float | None = None
    cosine_bounds: tuple[float, float] | None = None  # of the mean and the worst, below fp32
    invariance_max_abs: float = 0.0  # alone against batched
    outputs: tuple[str, ...] = ()
    scope: str = "artifact"  # what ran: the artifact, or only the graph that it was lowered from

    def to_plain(self) -> dict[str, Any]:
        """Return the JSON object of the report."""
        return asdict(self)


@dataclass(slots=True)
class _Gate:
    """The bounds of the artifact's precision, and what was compared by cosine."""

    precision: Precision
    bounds: Bounds
    cosines: Cosines = field(default_factory=Cosines)


def verify(engine: Engine, reference: Reference) -> Parity:
    """Compare every case of the reference, alone and batched, within the precision's bounds.

    Raises ParityError that names the worst text, and TokenizerError for a tokenizer of another
    model.
    """
    cases = reference.cases()
    precision = engine.artifact.manifest.precision
    gate = _Gate(precision, BOUNDS[precision])
    parity = Parity(reference.name, sum(len(case.items) for case in cases), 0, gate.bounds.error)
    for case in cases:
        _verify_case(engine, reference, case, parity, gate)
    if gate.bounds.mean_cosine is not None and gate.bounds.worst_cosine is not None:
        parity.cosine_bounds = (gate.bounds.mean_cosine, gate.bounds.worst_cosine)
    parity.mean_cosine, parity.worst_cosine = gate.cosines.mean, gate.cosines.worst
    _check_cosines(parity, gate)
    return parity


def _verify_case(
    engine: Engine, reference: Reference, case: Case, parity: Parity, gate: _Gate
) -> None:
    items = case.items
    prepared = [engine.prepare(case.task, [item], case.params) for item in items]
    together = engine.prepare(case.task, items, case.params)
    _check_tokens(case, together, reference)
    route = set_route(together.output_set)
    _check_vocabulary(items, together, route_spec(engine.spec, route).vocab_size)
    parity.longest_tokens = max(parity.longest_tokens, *together.lengths)
    expected = reference.rows(case)
    graphs = engine.artifact.manifest.graphs
    sets = [name for name in sorted(graphs, reverse=True) if set_route(name) == route]
    seen = {graphs[output_set].file: output_set for output_set in sets}
    for output_set in sorted(seen.values()):
        batched = _run(engine, together, output_set)
        alone = [_run(engine, one, output_set)[0] for one in prepared]
        parity.outputs = tuple(sorted({*parity.outputs, *batched[0]}))
        for rows in (batched, alone):
            _compare(parity, gate, items, rows, expected)
        if TOKEN_LOGITS in batched[0]:
            answers = reference.answers(case, expected)
            _compare_answers(parity, gate, items, engine.finish(together, batched), answers)
        _compare_invariance(parity, gate, items, alone, batched)


def _run(engine: Engine, prepared: Prepared, output_set: str) -> list[Row]:
    chosen = Prepared(prepared.task, prepared.params, prepared.sequences, output_set)
    rows = engine.submit(chosen).wait()
    size = engine.spec.vocab_size
    return [heads.expand(row, size) if SPARSE_VALUES in row else row for row in rows]


def _check_tokens(case: Case, prepared: Prepared, reference: Reference) -> None:
    for item, sequence in zip(case.items, prepared.sequences, strict=True):
        ids, types = reference.token_ids(case, item)
        same = sequence.ids.tolist() == ids
        same = same and (
            types is None or sequence.type_ids is None or sequence.type_ids.tolist() == types
        )
        if not same:
            raise ParityError(
                f"the tokenizer differs from AutoTokenizer on {_shown(item)}: "
                f"{sequence.ids.tolist()[:12]}... instead of {ids[:12]}..."
            )


def _check_vocabulary(items: Sequence[Item], prepared: Prepared, vocab_size: int) -> None:
    for item, sequence in zip(items, prepared.sequences, strict=True):
        highest = int(sequence.ids.max())
        if highest >= vocab_size:
            raise TokenizerError(
                f"the tokenizer gives token {highest} for {_shown(item)}, but the model has "
                f"{vocab_size}, from 0: it is the tokenizer of another model"
            )


def _compare(
    parity: Parity,
    gate: _Gate,
    items: Sequence[Item],
    rows: Sequence[Row],
    expected: Sequence[Row],
) -> None:
    worst, culprit = 0.0, ""
    for item, row, wanted in zip(items, rows, expected, strict=True):
        for name, values in row.items():
            target = wanted[name]
            if values.shape != target.shape:
                raise ParityError(
                    f"{name} of {_shown(item)}: {values.shape} instead of {target.shape}"
                )
            error = _largest(values - target)
            relative = error / max(1.0, _largest(target))
            if not np.isfinite(relative):
                hint = f"; its activations exceed {gate.precision}: try bf16"
                known = gate.precision is Precision.FP16
                raise ParityError(f"{name} of {_shown(item)} is not finite{hint if known else ''}")
            parity.max_abs_error = max(parity.max_abs_error, error)
            parity.max_relative_error = max(parity.max_relative_error, relative)
            if relative > worst and gate.bounds.limits_error(values.shape[-1]):
                worst, culprit = relative, f"{name} of {_shown(item)}"
            gate.cosines.add(values, target, f"{name} of {_shown(item)}")
    if worst > parity.bound:
        raise ParityError(
            f"{culprit} differs from {parity.reference} by {worst:.3g}, more than the bound of "
            f"{parity.bound:g}; nothing was written"
        )


def _compare_answers(
    parity: Parity,
    gate: _Gate,
    items: Sequence[Item],
    made: heads.Result,
    wanted: Sequence[Float32] | None,
) -> None:
    """Compare what the runtime makes of logits of tokens: columns, steps, activation."""
    if wanted is not None and isinstance(made, Ragged):
        found, expected = ([{"answers": row} for row in rows] for rows in (made, wanted))
        _compare(parity, gate, items, found, expected)


def _compare_invariance(
    parity: Parity,
    gate: _Gate,
    items: Sequence[Item],
    alone: Sequence[Row],
    batched: Sequence[Row],
) -> None:
    bound = gate.bounds.invariance
    for item, one, other in zip(items, alone, batched, strict=True):
        for name, values in one.items():
            error = _largest(values - other[name])
            parity.invariance_max_abs = max(parity.invariance_max_abs, error)
            if error > bound * max(1.0, _largest(values)):
                raise ParityError(
                    f"{name} of {_shown(item)} alone and in a batch differ by {error:.3g}, more "
                    f"than the bound of {bound:g}; nothing was written"
                )


def _largest(values: np.ndarray) -> float:
    """Return the largest magnitude; 0 of a text of which no token is kept (ColBERT)."""
    return float(np.abs(values).max(initial=0.0))


def _check_cosines(parity: Parity, gate: _Gate) -> None:
    for name, found, bound in (
        ("mean", parity.mean_cosine, gate.bounds.mean_cosine),
        ("worst", parity.worst_cosine, gate.bounds.worst_cosine),
    ):
        if found is not None and bound is not None and found < bound:
            raise ParityError(
                f"the {name} cosine to {parity.reference} is {found:.4f}, less than the bound of "
                f"{bound:g} (worst: {gate.cosines.culprit}); nothing was written"
            )


def _shown(item: Item) -> str:
    text = repr(item)
    return text if len(text) <= 60 else f"{text[:57]}..."
