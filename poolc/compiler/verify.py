"""The parity gate: the artifact, run through the real runtime, against the reference.

Nothing is published that does not pass. Bounds are those of docs/parity.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from poolc.compiler.parity_texts import PARITY_MAX_LENGTH, parity_pairs, parity_texts
from poolc.compiler.reference import Reference
from poolc.errors import ParityError, TokenizerError
from poolc.runtime.engine import Engine
from poolc.runtime.request import Item, Params, Prepared, Row
from poolc.spec import MAIN_SET, TOKENS_SET, Task

FP32_BOUND = 1e-5  # times max(1, largest reference value), for every output
_FEW_NUMBERS = 16  # below this a cosine says little


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
    invariance_max_abs: float = 0.0  # alone against batched
    outputs: tuple[str, ...] = ()

    def to_plain(self) -> dict[str, Any]:
        """Return the JSON object of the report."""
        return asdict(self)


def verify(engine: Engine, reference: Reference) -> Parity:
    """Compare texts (and pairs, for classifiers) alone and batched.

    Raises ParityError that names the worst text, and TokenizerError for a tokenizer of another
    model.
    """
    items = _items(engine)
    prepared = [_prepare(engine, engine.spec.tasks[0], [item]) for item in items]
    together = _prepare(engine, engine.spec.tasks[0], items)
    _check_tokens(items, together, reference)
    _check_vocabulary(items, together, engine.spec.vocab_size)
    expected = reference.rows(items)
    parity = Parity(reference.name, len(items), max(together.lengths), FP32_BOUND)
    sets = [name for name in (MAIN_SET, TOKENS_SET) if name in engine.artifact.manifest.graphs]
    for output_set in sets:
        batched = _run(engine, together, output_set)
        alone = [_run(engine, one, output_set)[0] for one in prepared]
        parity.outputs = tuple(sorted({*parity.outputs, *batched[0]}))
        for rows in (batched, alone):
            _compare(parity, items, rows, expected)
        _compare_invariance(parity, items, alone, batched)
    return parity


def _items(engine: Engine) -> list[Item]:
    longest = min(engine.max_length, PARITY_MAX_LENGTH)
    texts = parity_texts(longest)
    return texts + parity_pairs(longest) if engine.spec.labels else texts


def _prepare(engine: Engine, task: Task, items: list[Item]) -> Prepared:
    limit = min(engine.max_length, PARITY_MAX_LENGTH)
    task = Task.ENCODE if task is Task.REWARD else task
    return engine.prepare(task, items, Params(prompt="", truncate=True, max_length=limit))


def _run(engine: Engine, prepared: Prepared, output_set: str) -> list[Row]:
    chosen = Prepared(prepared.task, prepared.params, prepared.sequences, output_set)
    return engine.submit(chosen).wait()


def _check_tokens(items: Sequence[Item], prepared: Prepared, reference: Reference) -> None:
    for item, sequence in zip(items, prepared.sequences, strict=True):
        ids, types = reference.token_ids(item)
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
    parity: Parity, items: Sequence[Item], rows: Sequence[Row], expected: Sequence[Row]
) -> None:
    worst, culprit = 0.0, ""
    for item, row, wanted in zip(items, rows, expected, strict=True):
        for name, values in row.items():
            target = wanted[name]
            if values.shape != target.shape:
                raise ParityError(
                    f"{name} of {_shown(item)}: {values.shape} instead of {target.shape}"
                )
            error = float(np.abs(values - target).max())
            relative = error / max(1.0, float(np.abs(target).max()))
            if not np.isfinite(relative):
                raise ParityError(f"{name} of {_shown(item)} is not finite")
            parity.max_abs_error = max(parity.max_abs_error, error)
            if relative > worst:
                worst, culprit = relative, f"{name} of {_shown(item)}"
            _keep_cosine(parity, values, target)
    parity.max_relative_error = max(parity.max_relative_error, worst)
    if worst > parity.bound:
        raise ParityError(
            f"{culprit} differs from {parity.reference} by {worst:.3g}, more than the bound of "
            f"{parity.bound:g}; nothing was written"
        )


def _compare_invariance(
    parity: Parity, items: Sequence[Item], alone: Sequence[Row], batched: Sequence[Row]
) -> None:
    for item, one, other in zip(items, alone, batched, strict=True):
        for name, values in one.items():
            error = float(np.abs(values - other[name]).max())
            parity.invariance_max_abs = max(parity.invariance_max_abs, error)
            if error > parity.bound * max(1.0, float(np.abs(values).max())):
                raise ParityError(
                    f"{name} of {_shown(item)} alone and in a batch differ by {error:.3g}, more "
                    f"than the bound of {parity.bound:g}; nothing was written"
                )


def _keep_cosine(parity: Parity, values: np.ndarray, target: np.ndarray) -> None:
    if values.shape[-1] < _FEW_NUMBERS:
        return
    left, right = values.reshape(-1, values.shape[-1]), target.reshape(-1, values.shape[-1])
    norms = np.linalg.norm(left, axis=-1) * np.linalg.norm(right, axis=-1)
    cosine = float(((left * right).sum(-1) / np.maximum(norms, 1e-30)).min())
    parity.worst_cosine = (
        cosine if parity.worst_cosine is None else min(parity.worst_cosine, cosine)
    )


def _shown(item: Item) -> str:
    text = repr(item)
    return text if len(text) <= 60 else f"{text[:57]}..."
