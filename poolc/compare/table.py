"""A comparison for people: the lines that a terminal shows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from poolc.compare.result import Answers, Comparison, Vectors
from poolc.compare.sides import Identity
from poolc.spec import Precision

_WORST = 3


def table(found: Comparison) -> str:
    """Return what was found, a subject a line."""
    rows = [*_rows(found)]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name.ljust(width)}  {told}".rstrip() for name, told in rows)


def note(found: Comparison) -> str | None:
    """Return what a reader has to know to read the figures right, None where it is nothing."""
    said = []
    if found.vectors is not None and found.same_space is False:
        said.append(
            "the two are of different vector spaces: cosines between their vectors say little, "
            "neighbours and scores do, and an index of one cannot answer queries of the other"
        )
    if found.max_length is not None:
        said.append(f"texts were cut to {found.max_length:,} tokens, as many as an original reads")
    if found.speed is not None and any(side.artifact_id is None for side in found.sides):
        said.append(
            "the original ran one text at a time, as the parity gate runs it: its rate is no "
            "measure of what its library reaches in batches"
        )
    return ". ".join(one[0].upper() + one[1:] for one in said) or None


def identity(side: Identity) -> str:
    """Say who a side is."""
    told = [side.engine if side.artifact_id is None else f"{side.engine}, {side.precision}"]
    if side.artifact_id is None:
        told.append(f"the original, {Precision.FP32}")
    else:
        told.append(f"artifact {side.artifact_id[:12]}")
    if side.space_id is not None:
        told.append(f"space {side.space_id[:12]}")
    return f"{side.name} ({', '.join(told)})"


def _rows(found: Comparison) -> Iterator[tuple[str, str]]:
    for name, side in zip("AB", found.sides, strict=True):
        yield name, identity(side)
    yield "compared", f"{found.task} of {found.num_rows:,} rows of {found.file}"
    figures = found.figures()
    if found.vectors is not None:
        yield from _of_vectors(found.vectors, figures)
    if found.answers is not None:
        yield from _of_answers(found.answers, figures)
    if found.speed is not None:
        speed = found.speed
        (a, b), (low, high) = speed.per_s, speed.spread
        yield (
            "speed",
            f"A {a:,.0f}, B {b:,.0f} a second: B {speed.ratio:.2f}x of A (rounds {low:.2f} to "
            f"{high:.2f}, {len(speed.ratios)} of {speed.num_items} items)",
        )
    said = note(found)
    if said is not None:
        yield "note", said


def _of_vectors(vectors: Vectors, figures: dict[str, float]) -> Iterator[tuple[str, str]]:
    yield (
        "cosine",
        f"mean {figures['cosine']:.6f}, worst {figures['cosine_min']:.6f}, 1 % below "
        f"{figures['cosine_p1']:.6f}, 5 % below {figures['cosine_p5']:.6f} "
        f"({vectors.num_texts:,} texts of {vectors.size} numbers)",
    )
    yield "numbers", f"largest difference {figures['max_abs']:.3g}"
    near = vectors.neighbours
    if near is None:
        yield "neighbours", "too few different texts to compare neighbours"
    else:
        yield (
            "neighbours",
            f"{100 * figures['overlap']:.2f} % of the {near.k} nearest are the same, the nearest "
            f"one for {100 * figures['same_nearest']:.1f} % ({len(near.overlaps):,} texts asked "
            f"among {near.num_texts:,})",
        )
        yield (
            "ranks",
            f"Spearman {_number(figures['rank_correlation'])} over the {near.ranked} nearest, "
            f"worst {_number(figures['rank_correlation_min'])}",
        )
    yield from _worst("lowest cosine", vectors.worst)


def _of_answers(answers: Answers, figures: dict[str, float]) -> Iterator[tuple[str, str]]:
    what = "probabilities" if answers.labels else "scores"
    yield (
        what,
        f"largest difference {figures['max_difference']:.3g}, mean "
        f"{figures['mean_difference']:.3g}",
    )
    if "label_agreement" in figures:
        yield "labels", f"the same for {100 * figures['label_agreement']:.2f} %"
    if "correlation" in figures:
        yield "ranks", f"Spearman {_number(figures['correlation'])} of all scores"
    if answers.quality is not None:
        before, after = answers.quality
        yield (
            "quality",
            f"{answers.metric}: A {_number(before, 2)}, B {_number(after, 2)} "
            f"({after - before:+.2f})",
        )
    yield from _worst("most different", answers.worst)


def _worst(name: str, worst: Sequence[tuple[str, float]]) -> Iterator[tuple[str, str]]:
    for place, (text, value) in enumerate(worst[:_WORST]):
        yield ("" if place else name), f"{value:.6g}  {text}"


def _number(value: float, digits: int = 4) -> str:
    return "not defined" if math.isnan(value) else f"{value:.{digits}f}"
