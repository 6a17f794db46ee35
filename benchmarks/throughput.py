"""Offline throughput against Sentence Transformers: same texts, alternating rounds.

    python -m benchmarks.throughput [--data DIR] [--texts 500] [--rounds 5]

Each system has a process and loads first; then every round runs each of them once, in turn, so
that a slow spell of the machine hits all alike. The ratio is of medians, against the peer's best
batch size, and the vectors are compared so that nobody wins by doing less.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from tokenizers import Tokenizer

import poolc
from benchmarks.options import model_or_default, parser, write
from benchmarks.workload import mixed

PEER = "sentence-transformers"
BATCH_SIZES = (8, 32, 128)


class Worker:
    """A system's process."""

    def __init__(self, system: str, model: str, texts: Path, folder: Path) -> None:
        self.system = system
        self.output = folder / f"{system.replace(':', '-')}.npy"
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "benchmarks.worker",
                system,
                model,
                str(texts),
                str(self.output),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if self._line(self._process.stdout) != "ready":
            raise SystemExit(f"{system} did not start")

    def round(self) -> float:
        """Embed all texts once; return the seconds it took."""
        if self._process.stdin is None:
            raise SystemExit(f"{self.system} has no standard input")
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return float(self._line(self._process.stdout))

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _line(self, stream: IO[str] | None) -> str:
        line = stream.readline().strip() if stream is not None else ""
        if not line:
            raise SystemExit(f"{self.system} stopped (exit code {self._process.wait()})")
        return line


def main() -> None:
    """Run the comparison and print a table."""
    options = parser("Throughput against Sentence Transformers")
    options.add_argument("--texts", type=int, default=500)
    options.add_argument("--rounds", type=int, default=5)
    arguments = options.parse_args()
    model = model_or_default(arguments.model)
    artifact = poolc.compile(model)
    texts = mixed(arguments.texts, arguments.data)
    tokens = count_tokens(artifact.path, texts)
    systems = ["poolc", *(f"{PEER}:{size}" for size in BATCH_SIZES)]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "texts.json"
        file.write_text(json.dumps(texts), encoding="utf-8")
        paths = {"poolc": str(artifact.path)}
        workers = [Worker(s, paths.get(s, model), file, Path(folder)) for s in systems]
        seconds = alternate(workers, arguments.rounds)
        difference = compare(workers)
        for worker in workers:
            worker.close()
    results = summarize(seconds, tokens) | {"max_abs_difference": difference}
    show(results)
    write(results | {"texts": len(texts), "tokens": tokens}, arguments.json)


def alternate(workers: list[Worker], rounds: int) -> dict[str, list[float]]:
    """Run every worker once a round; return the seconds by system."""
    seconds: dict[str, list[float]] = {worker.system: [] for worker in workers}
    for _ in range(rounds):
        for worker in workers:
            seconds[worker.system].append(worker.round())
    return seconds


def compare(workers: list[Worker]) -> float:
    """Return the largest difference of any number between the first system and the others."""
    first, *others = (np.load(worker.output) for worker in workers)
    return max(float(np.abs(first - other).max()) for other in others)


def count_tokens(artifact: Path, texts: list[str]) -> int:
    """Count the tokens computed: those of each text, cut at the model's maximum length."""
    engine = poolc.load(artifact)
    tokenizer = Tokenizer.from_file(str(engine.artifact.file("tokenizer.json")))
    tokenizer.enable_truncation(engine.max_length)
    return sum(len(encoding) for encoding in tokenizer.encode_batch(texts))


def summarize(seconds: dict[str, list[float]], tokens: int) -> dict[str, Any]:
    """Return medians, tokens a second, and the ratio to the peer's best batch size."""
    medians = {system: statistics.median(values) for system, values in seconds.items()}
    best = min((system for system in medians if system != "poolc"), key=medians.__getitem__)
    rounds = [peer / ours for ours, peer in zip(seconds["poolc"], seconds[best], strict=True)]
    return {
        "seconds": seconds,
        "median_seconds": medians,
        "tokens_per_second": {system: tokens / value for system, value in medians.items()},
        "best_peer": best,
        "ratio": medians[best] / medians["poolc"],
        "ratio_by_round": rounds,
    }


def show(results: dict[str, Any]) -> None:
    """Print a Markdown table."""
    print("| system | median s | tokens/s | poolc is faster by |")
    print("| --- | --- | --- | --- |")
    ours = results["median_seconds"]["poolc"]
    for system, median in results["median_seconds"].items():
        rate = results["tokens_per_second"][system]
        print(f"| {system} | {median:.2f} | {rate:,.0f} | {median / ours:.2f}x |")
    low, high = min(results["ratio_by_round"]), max(results["ratio_by_round"])
    print(
        f"\nagainst {results['best_peer']}: {results['ratio']:.2f}x (rounds {low:.2f} to "
        f"{high:.2f}); largest difference of any number: {results['max_abs_difference']:.1e}"
    )


if __name__ == "__main__":
    main()
