"""The stages of a target on a GPU: one model, then families and models, then speed.

Nothing is begun once time is up, and what is left out is said.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu import operations, speed
from benchmarks.gpu.compiling import (
    CUDA,
    OTHER_HEADS,
    PRECISIONS,
    TENSORRT,
    Wanted,
    compile_family,
    compile_shape,
)
from benchmarks.gpu.shapes import SHAPES, Shape, build, load_texts

_FIRST, _LARGE = "minilm", "xlm-r-large"
_LONG_TEXTS = 256  # that operations are tried with
FAMILIES, SPEED, OPERATIONS = STAGES = ("families", "speed", "operations")
# Compiling at a time, at most. Builders of engines hold memory of the device; those of the models
# that are timed run alone, since the builder times kernels.
_PROCESSES = {CUDA: 14, TENSORRT: 6}


@dataclass(frozen=True, slots=True)
class Run:
    """What is asked for, where models lie meanwhile, and ``found``, which stages add to."""

    root: Path
    data: Path | None
    models: tuple[str, ...]
    families: tuple[str, ...]
    until_s: float  # of time.monotonic()
    found: dict[str, Any]
    say: Callable[[str], None]
    smoke: bool = False
    stages: tuple[str, ...] = STAGES

    @property
    def is_over(self) -> bool:
        """Whether nothing more is begun."""
        return time.monotonic() > self.until_s

    def artifact(self, name: str, wanted: Wanted) -> Path:
        """Return where a model's artifact lies."""
        return self.root / f"{name}-{wanted.target}-{wanted.precision}"

    def add(self, kind: str, result: dict[str, Any]) -> bool:
        """Keep a result and say it; return whether it failed."""
        self.found.setdefault(kind, []).append(result)
        self.say(line(result))
        return "failed" in result


def run_target(run: Run, target: str) -> bool:
    """Run every stage of a target; return whether anything failed."""
    first = Wanted(target, "fp16")
    made = _made(run, _FIRST, first)
    if made is None or made["scope"] != "artifact":
        run.say(f"{target}: the smoke test failed, nothing else of it is tried")
        return True
    stressed = speed.stress(run.artifact(_FIRST, first), run.say)
    run.found.setdefault("stress", {})[target] = stressed
    if stressed["failures"] or run.smoke:
        return bool(stressed["failures"])
    failed = FAMILIES in run.stages and _check(run, target)
    if SPEED in run.stages:
        _measure(run, target)
    if OPERATIONS in run.stages and target == CUDA:
        _operate(run)
    return failed


def precisions(shape: Shape, target: str) -> tuple[str, ...]:
    """Return what a timed model is compiled in: fp8 beside fp16, where products are large."""
    if target == CUDA:
        return shape.precisions
    return ("fp16", "fp8") if shape.settings.hidden_size >= 768 else ("fp16",)


def _check(run: Run, target: str) -> bool:
    """Compile the families in every precision, and for cuda the models beside them."""
    processes = _PROCESSES[target]
    failed = False
    with ProcessPoolExecutor(max(2, min(processes, (os.cpu_count() or 2) - 2))) as pool:
        jobs: list[Future[dict[str, Any]]] = []
        if target == CUDA:
            jobs += _model_jobs(run, target, pool)
        jobs += [
            pool.submit(compile_family, family, Wanted(target, precision))
            for family in run.families
            for precision in PRECISIONS[target]
        ]
        jobs += [
            pool.submit(compile_family, family, Wanted(target, precision), head)
            for family, head in OTHER_HEADS
            if family in run.families
            for precision in ("fp32", "fp16")
        ]
        try:
            for job in as_completed(jobs, timeout=max(0.0, run.until_s - time.monotonic())):
                result = job.result()
                failed = run.add("families" if "family" in result else "models", result) or failed
        except TimeoutError:
            left = sum(not job.done() for job in jobs)
            run.say(f"{target}: time is up, {left} of {len(jobs)} models were not compiled")
            pool.shutdown(wait=False, cancel_futures=True)
    return failed


def _model_jobs(run: Run, target: str, pool: ProcessPoolExecutor) -> list[Future[dict[str, Any]]]:
    built = {
        pool.submit(build, name, run.root, run.data): name
        for name in run.models
        if not (run.root / name).exists()
    }
    jobs = []
    for done in as_completed(built):
        name = built[done]
        for precision in SHAPES[name].precisions:
            wanted = Wanted(target, precision)
            output = str(run.artifact(name, wanted))
            jobs.append(pool.submit(compile_shape, str(done.result()), wanted, output))
    return jobs


def _measure(run: Run, target: str) -> None:
    """Time each model; engines are built here, alone on the machine."""
    texts = load_texts(run.data)
    peaks = run.found.setdefault("matrix_peak_tflops", {})
    checked = target == CUDA and FAMILIES in run.stages
    for name in run.models:
        for precision in precisions(SHAPES[name], target):
            wanted = Wanted(target, precision)
            if run.is_over:
                run.say(f"{name} {wanted.name}: time is up, it was not measured")
                continue
            artifact = run.artifact(name, wanted)
            if not artifact.exists() and (checked or _made(run, name, wanted) is None):
                continue  # it did not compile
            peer = speed.peer_precision(precision)
            peak = speed.matrix_peak(peer)
            peaks.setdefault(peer, []).append(peak / 1e12)
            system = speed.System(SHAPES[name], run.root / name, artifact, wanted)
            run.found.setdefault("speed", {})[f"{name}-{wanted.name}"] = speed.measure(
                system, texts, peak, run.say
            )


def _made(run: Run, name: str, wanted: Wanted) -> dict[str, Any] | None:
    """Compile a model, built first where it is not there; None where that failed."""
    if not (run.root / name).exists():
        build(name, run.root, run.data)
    made = compile_shape(str(run.root / name), wanted, str(run.artifact(name, wanted)))
    return None if run.add("models", made) else made


def _operate(run: Run) -> None:
    """Try what a server meets, with a small and a large model."""
    wanted = Wanted(CUDA, "fp16")
    found = {name: run.artifact(name, wanted) for name in (_FIRST, _LARGE)}
    if run.is_over:
        run.say("operations: time is up, nothing of them was tried")
        return
    for name, artifact in found.items():
        if not artifact.exists() and _made(run, name, wanted) is None:
            return
    long = load_texts(run.data).long[:_LONG_TEXTS]
    run.found["operations"] = operations.operate(
        list(found.values()), long, run.say, lambda: run.is_over
    )


def line(found: dict[str, Any]) -> str:
    """Say what a compile found."""
    model = found.get("family") or found.get("model")
    name = f"{model} {Wanted(found['target'], found['precision']).name}"
    if "failed" in found:
        return f"{name}: FAILED {found['failed']}"
    if "absent" in found:
        return f"{name}: not in this transformers"
    cosine = found["worst_cosine"]
    shown = "none" if cosine is None else f"{cosine:.7f}"
    return (
        f"{name}: error {found['max_relative_error']:.1e}, worst cosine {shown}, alone and "
        f"batched {found['invariance_max_abs']:.1e} ({found['scope']}, {found['layout']})"
    )
