"""Time rewrites on this machine and keep what is faster, one after the other, within a budget."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx_ir as ir

from poolc.compiler.quantize.linears import find_groups
from poolc.compiler.tuning.candidates import NAMES
from poolc.compiler.tuning.record import BUDGET_TOKENS, Tuning
from poolc.compiler.tuning.timing import Shape, compare, feeds, seconds, session, soonest
from poolc.runtime.cores import allowed_cores
from poolc.spec import ModelSpec

# A rewrite has to gain so much: what two runs of one graph differ by stays below.
_GUARD = 0.01
# Smaller models take less than a millisecond a text: nothing to win, and noise would choose.
_MIN_WEIGHTS = 1_000_000
_BUDGET_GUARD = 0.03  # another micro-batch changes memory and latency as well
# More threads have to bring a lone text's answer so much forward: they take cores from others.
_LONE_GUARD = 0.1
_LONE_TOKENS = 24  # a query
_MOST_LONE_THREADS = 8


@dataclass(frozen=True, slots=True)
class Effort:
    """What a mode of ``--tune`` may cost; ``budget_s`` is of the clock."""

    budget_s: float
    shapes: tuple[Shape, ...]
    budgets: tuple[int, ...]  # of tokens
    most_rounds: int
    sweeps: int = 1  # a rewrite may pay only beside another that was found later


EFFORTS = {
    "quick": Effort(20.0, ((4, 64), (1, 24)), (128, 256, 512), 15),
    "full": Effort(90.0, ((8, 32), (4, 64), (1, 256), (1, 16)), (64, 128, 256, 512, 1024), 60, 2),
}


@dataclass(frozen=True, slots=True)
class Built:
    """The main graph with some rewrites, and which of them found something to rewrite."""

    model: ir.Model
    found: frozenset[str]


Build = Callable[[Sequence[str]], Built]


@dataclass(slots=True)
class Tuned:
    """What was chosen (manifest), and what was tried with the ratios (report)."""

    tuning: Tuning
    report: dict[str, Any] = field(default_factory=dict)


def choose(build: Build, spec: ModelSpec, start: Tuning, mode: str, folder: Path) -> Tuned:
    """Start from what ships and try every rewrite the other way round, then micro-batch sizes and
    threads.

    ``build`` makes the graph to time; ``folder`` holds weights meanwhile.
    """
    return _Search(build, spec, start, EFFORTS[mode], folder).run(mode)


def why_not(canonical: ir.Model) -> str | None:
    """Say why a model is not timed, by its fp32 graph; None where it is."""
    weights = sum(group.num_weights for group in find_groups(canonical.graph))
    if weights < _MIN_WEIGHTS:
        return f"{weights:,} weights in products: fewer than {_MIN_WEIGHTS:,} are not timed"
    tensors = [value.const_value for value in canonical.graph.initializers.values()]
    size = sum(tensor.nbytes for tensor in tensors if tensor is not None)
    # Two sessions, each of which may hold a packed copy of its weights.
    if 4 * size > _memory_bytes():
        return f"two copies of {size / 1e9:.1f} GB of weights leave too little memory"
    return None


def _memory_bytes() -> int:
    """Return what can be allocated; free pages alone where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(s.split()[1]) * 1024 for s in lines if s.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


class _Search:
    def __init__(
        self, build: Build, spec: ModelSpec, start: Tuning, effort: Effort, folder: Path
    ) -> None:
        self._build, self._spec, self._start, self._effort = build, spec, start, effort
        self._folder = folder
        longest = spec.max_length
        shapes = {(texts, min(length, longest)) for texts, length in effort.shapes}
        self._feeds = [feeds(spec, shape) for shape in sorted(shapes)]
        self._began = time.monotonic()
        self._tried: dict[str, Any] = {}

    def run(self, mode: str) -> Tuned:
        chosen, built, runner = self._rewrites()
        budget, per_token = self._budget_tokens(runner)
        threads, lone = self._lone_threads(built, runner)
        report = {
            "mode": mode,
            "seconds": round(time.monotonic() - self._began, 1),
            "rewrites": self._tried,
            "us_per_token": per_token,
            "lone_text_ms": lone,
        }
        return Tuned(Tuning(chosen, budget, threads), report)

    def _rewrites(self) -> tuple[tuple[str, ...], Built, Any]:
        chosen = set(self._start.rewrites)
        built = self._build(_ordered(chosen))
        runner = session(built.model, self._folder)
        every = [name for _ in range(self._effort.sweeps) for name in NAMES]
        for i, name in enumerate(every):
            left = self._began + self._effort.budget_s - time.monotonic()
            if left <= 0:
                self._tried.setdefault(name, {"not_timed": "the time was up"})
                continue
            without, with_it = _ordered(chosen - {name}), _ordered(chosen | {name})
            other = self._build(without if name in chosen else with_it)
            if name not in (built.found if name in chosen else other.found):
                continue  # nothing of the kind in this model
            rival = session(other.model, self._folder)
            until = time.monotonic() + left / (len(every) - i)
            found = compare(runner, rival, self._feeds, _GUARD, until, self._effort.most_rounds)
            gain = 1 / found.ratio if name in chosen else found.ratio
            if found.sure:
                chosen, built, runner = chosen ^ {name}, other, rival
            self._tried[name] = {
                "speedup": round(gain, 4),
                "rounds": found.rounds,
                "kept": name in chosen,
            }
        return _ordered(chosen), built, runner

    def _budget_tokens(self, runner: Any) -> tuple[int, dict[str, float]]:
        """Return the micro-batch that costs least a token, of texts of 64."""
        length = min(64, self._spec.max_length)
        inputs = {n: feeds(self._spec, (max(1, n // length), length)) for n in self._effort.budgets}
        best = dict.fromkeys(inputs, float("inf"))
        for _ in range(max(3, self._effort.most_rounds // 4)):
            for tokens, one in inputs.items():
                size = next(iter(one.values())).size
                best[tokens] = min(best[tokens], seconds(runner, one) / size)
        fastest = min(best, key=lambda tokens: best[tokens])
        if best[fastest] > best[BUDGET_TOKENS] * (1 - _BUDGET_GUARD):
            fastest = BUDGET_TOKENS
        return fastest, {str(tokens): round(s * 1e6, 2) for tokens, s in best.items()}

    def _lone_threads(self, built: Built, runner: Any) -> tuple[int, dict[str, float]]:
        """Return the threads that answer one short text soonest, doubled as long as that pays.

        Where all cores at hand pay, a machine with more may use more.
        """
        text = feeds(self._spec, (1, min(_LONE_TOKENS, self._spec.max_length)))
        most = min(allowed_cores(), _MOST_LONE_THREADS)
        threads, tried = 1, dict[str, float]()
        while threads < most:
            more = min(2 * threads, most)
            rival = session(built.model, self._folder, more)
            times = soonest((runner, rival), text, self._effort.most_rounds)
            tried |= {
                str(n): round(1000 * s, 3) for n, s in zip((threads, more), times, strict=True)
            }
            if times[1] > times[0] * (1 - _LONE_GUARD):
                return threads, tried
            threads, runner = more, rival
        return _MOST_LONE_THREADS, tried


def _ordered(names: set[str] | frozenset[str]) -> tuple[str, ...]:
    return tuple(name for name in NAMES if name in names)
