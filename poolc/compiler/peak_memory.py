"""What texts of several lengths take of memory: an artifact runs them in a process of its own.

``python -m poolc.compiler.peak_memory FOLDER`` prints, as lines of JSON, tokens and the most bytes
that were resident until then. The compiler's own process has had PyTorch in it, so that its peak
says nothing.
"""

from __future__ import annotations

import json
import math
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from poolc.compiler.events import Progress
from poolc.model_cache.artifact import open_artifact
from poolc.model_cache.manifest import Manifest
from poolc.runtime.engine import Engine
from poolc.runtime.memory import SHORTEST_MEASURED, MemoryFit
from poolc.runtime.request import TokenSequence
from poolc.spec import MAIN_SET, TOKEN_TYPE_IDS, Target

_SHORTEST = 16
_LENGTHS = (SHORTEST_MEASURED, 512, 768, 1024, 1536, 2048, 4096, 8192, 16384, 32768)
# A length is not run where the one before took so long: it would take 2 to 4 times that.
_MOST_SECONDS = 4.0
_ALWAYS = 2048  # tokens that are run however long they take


def measure(folder: Path, manifest: Manifest, progress: Progress) -> dict[str, Any] | None:
    """Return what report.json says of memory: a fit by length, and the points, of what is staged.

    None for another target than the CPU, for a model whose longest text shares a micro-batch, and
    where the process fails: the artifact is no worse for not being measured.
    """
    if manifest.spec.max_length < SHORTEST_MEASURED or manifest.target is not Target.CPU:
        return None
    command = [sys.executable, "-m", "poolc.compiler.peak_memory", str(folder)]
    with progress.stage("measure"):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    if done.returncode or len(lines) < 2:
        progress.warn("the memory that texts take could not be measured: no memory limit will hold")
        return None
    points = {int(tokens): int(peak) for tokens, peak in map(json.loads, lines)}
    fit = _fit(points, manifest.tuning.get("attention", {}))
    return report(fit, points, manifest.spec.max_length)


def _fit(points: Mapping[int, int], attention: Mapping[str, Any]) -> dict[str, Any]:
    """Fit what is beside the resident part; rounded up, to be no less than what was measured."""
    resident = points[_SHORTEST]
    beside = [(n, peak - resident) for n, peak in points.items() if n > _SHORTEST]
    found: dict[str, Any] = {"resident_bytes": round(_up(resident))}
    records = list(attention.values())
    above = max((record["max_whole_tokens"] for record in records), default=0)
    long = [point for point in beside if point[0] > above]
    if not above or not long:
        return {**found, "whole": _polynomial(beside, 2)}
    blocked = all(
        record["blocked"] and not record["left"] and not record["whole_masks"] for record in records
    )
    found["whole"] = _polynomial([point for point in beside if point[0] <= above], 2)
    # Not a line through the points: the first ones are held up by the longest whole text before.
    found["long"] = _proportional(long) if blocked else _polynomial(long, 2)
    return {**found, "max_whole_tokens": above}


def _proportional(points: Sequence[tuple[int, int]]) -> list[float]:
    return [0.0, _up(max(size / tokens for tokens, size in points))]


def _polynomial(points: Sequence[tuple[int, int]], degree: int) -> list[float]:
    """Return factors of rising power, none below 0 but the first, with no point above them."""
    tokens, sizes = (np.array(column, np.float64) for column in zip(*points, strict=True))
    for power in range(min(degree, len(points) - 1), 0, -1):
        factors = np.polynomial.polynomial.polyfit(tokens, sizes, power)
        if factors[1:].min() >= 0:
            break
    else:
        factors = np.array([0.0, float((sizes / tokens).max())])
    factors[1:] = [_up(factor) for factor in factors[1:]]
    left = sizes - sum(factor * tokens**power for power, factor in enumerate(factors) if power)
    return [_up(float(left.max())), *map(float, factors[1:])]


def _up(number: float) -> float:
    """Round away from zero to two digits where it is positive, toward zero where it is not."""
    if not number:
        return 0.0
    step = 10.0 ** (math.floor(math.log10(abs(number))) - 1)
    return float(f"{math.ceil(number / step) * step:.6g}")


def report(fit: Mapping[str, Any], points: Mapping[int, int], max_length: int) -> dict[str, Any]:
    """Return the fit, the measured peaks by length, and the estimate of the longest text."""
    found = MemoryFit.recorded({"memory": {"fit": fit}})
    longest = found.resident_bytes + found.estimate(max_length) if found else None
    return {
        "fit": fit,
        "peak_bytes": {str(tokens): peak for tokens, peak in points.items()},
        "longest_tokens": max_length,
        "longest_estimate_bytes": longest,
    }


def main() -> None:
    """Run texts of rising length and print the peak after each."""
    engine = Engine(open_artifact(Path(sys.argv[1])))
    lengths = {*(n for n in _LENGTHS if n <= engine.max_length), engine.max_length}
    for num_tokens in (_SHORTEST, *sorted(lengths)):
        start = time.perf_counter()
        engine.execute([_sequence(engine, num_tokens)], MAIN_SET)
        sys.stdout.write(f"{json.dumps([num_tokens, peak_bytes()])}\n")
        sys.stdout.flush()
        if num_tokens >= _ALWAYS and time.perf_counter() - start > _MOST_SECONDS:
            return


def _sequence(engine: Engine, num_tokens: int) -> TokenSequence:
    spec = engine.spec
    token = next(i for i in (1, 2) if i != spec.pad_token_id) % spec.vocab_size
    segments = np.zeros(num_tokens, np.int64) if TOKEN_TYPE_IDS in spec.inputs else None
    return TokenSequence(np.full(num_tokens, token, np.int64), segments)


def peak_bytes() -> int:
    """Return the most bytes that were resident in this process."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):  # unlike ru_maxrss not that of the parent before it
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    main()
