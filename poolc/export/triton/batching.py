"""How Triton is to batch a model, from what the artifact was tuned for. Pure functions.

poolc's runtime counts tokens, Triton rows of one shape: the budget of tokens becomes rows of usual
lengths, and texts are padded to few lengths, so that requests have a shape in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from poolc.errors import CannotExport, InvalidOption
from poolc.model_cache.manifest import Manifest
from poolc.runtime.cores import allowed_cores
from poolc.spec import ENGINE_TARGETS, Profile, Target

# Lengths of texts, in tokens, whose batches fill the budget.
_USUAL_TOKENS = (128, 64, 32)
_BUDGET_TOKENS = 256
_MOST_ROWS_CPU = 64
_MOST_ROWS_GPU = 256
# Engines run two at a time: one computes while the other is copied.
_ENGINE_INSTANCES = 2


@dataclass(frozen=True, slots=True)
class TritonOptions:
    """What a user may decide of a model repository; None means as the artifact says.

    ``pairs``: the model reads pairs of texts. ``truncate``: what is too long is cut where a request
    does not say, instead of refused. ``queue_delay_us``: microseconds that a request waits for
    others.
    """

    name: str | None = None
    instances: int | None = None
    max_batch_size: int | None = None
    queue_delay_us: int = 0
    truncate: bool = False
    pairs: bool | None = None

    def __post_init__(self) -> None:
        """Raise InvalidOption for a number that no configuration can have."""
        for field, least in (("instances", 1), ("max_batch_size", 1), ("queue_delay_us", 0)):
            value = getattr(self, field)
            if value is not None and value < least:
                raise InvalidOption(f"{field} is {value}; allowed: {least} or more", param=field)


@dataclass(frozen=True, slots=True)
class Batching:
    """``pad_to_powers``: padded lengths are powers of two, else multiples of 8 tokens.

    ``profiles`` are those of an engine that Triton may choose from, by number.
    """

    max_batch_size: int  # rows of a request too
    preferred: tuple[int, ...]  # rows
    queue_delay_us: int
    instances: int
    pad_to_powers: bool
    least_tokens: int = 1  # shorter texts are padded to it
    profiles: tuple[int, ...] = ()


def choose_batching(manifest: Manifest, options: TritonOptions) -> Batching:
    """Return how a model is batched.

    Raises InvalidOption for more rows than an engine was built for, and CannotExport for an engine
    whose profiles leave texts out.
    """
    on_cpu = manifest.target is Target.CPU
    is_engine = manifest.target in ENGINE_TARGETS
    most = _MOST_ROWS_CPU if on_cpu else _MOST_ROWS_GPU
    profiles: tuple[int, ...] = ()
    if is_engine:
        profiles, most = _profiles(manifest.profiles, manifest.spec.max_length)
        _check_rows(options.max_batch_size, most)
    rows = options.max_batch_size or most
    budget = int(manifest.tuning.get("budget_tokens", _BUDGET_TOKENS))
    usual = allowed_cores() if on_cpu else _ENGINE_INSTANCES if is_engine else 1
    return Batching(
        rows,
        _preferred(budget, rows),
        options.queue_delay_us,
        options.instances or usual,
        pad_to_powers=not on_cpu,
        least_tokens=min((manifest.profiles[i].min_shape[1] for i in profiles), default=1),
        profiles=profiles,
    )


def _preferred(budget_tokens: int, most_rows: int) -> tuple[int, ...]:
    rows = {min(budget_tokens // tokens, most_rows) for tokens in _USUAL_TOKENS}
    return tuple(sorted(rows - {0, 1}))


def _profiles(profiles: Sequence[Profile], max_length: int) -> tuple[tuple[int, ...], int]:
    """Return the profiles to use, and the most rows that fit one of them at every length.

    Triton fails a batch that no profile holds. Profiles of a single shape are left out where there
    are others: their batches fit those. Raises CannotExport where a text would fit none.
    """
    single = [i for i, one in enumerate(profiles) if one.min_shape[0] == 1]
    ranges = [i for i in single if profiles[i].min_shape != profiles[i].max_shape]
    used = ranges or single
    least = min((profiles[i].min_shape[1] for i in used), default=1)
    # What fits changes at these lengths only.
    lengths = {least, max_length}
    for i in used:
        lengths |= {profiles[i].min_shape[1], profiles[i].max_shape[1] + 1}
    rows = []
    for length in sorted(one for one in lengths if least <= one <= max_length):
        fitting = [profiles[i].max_shape[0] for i in used if _holds(profiles[i], length)]
        if not fitting:
            raise CannotExport(
                f"no profile of the engine holds a single text of {length} tokens, and Triton "
                "chooses batches by itself: compile the model with other --profiles"
            )
        rows.append(max(fitting))
    return tuple(used), min(rows)


def _holds(profile: Profile, length: int) -> bool:
    return profile.min_shape[1] <= length <= profile.max_shape[1]


def _check_rows(asked: int | None, most: int) -> None:
    if asked is not None and asked > most:
        raise InvalidOption(
            f"max_batch_size is {asked}; the engine's profiles hold {most} texts of any length: "
            "ask for fewer, or compile with other --profiles",
            param="max_batch_size",
        )
