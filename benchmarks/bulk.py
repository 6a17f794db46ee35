"""A bulk job over short rows: rows a minute, memory over time, and the share of the raw engine.

    python -m benchmarks.bulk [--model M] [--rows 1000000] [--output .bench/bulk] [--json FILE]

Writes the rows as JSON lines (generated, the same every time), runs ``poolc embed`` on them in a
process of its own, and reads its events and its memory meanwhile. The raw engine is
``Engine.embed_iter`` over the first ``--raw-rows`` of the same texts, read into a list before and
thrown away after, before and after the job: a machine that changes its speed meanwhile shows.
A plot (SVG, with matplotlib) goes beside the rows.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import poolc
from benchmarks.options import model_or_default, parser, write
from benchmarks.process import proportional_bytes
from benchmarks.workload import queries


def main() -> None:
    """Run the job and print what it did."""
    options = parser("A bulk job over short rows")
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--raw-rows", type=int, default=65_536)
    options.add_argument("--precision", default="fp32")
    options.add_argument("--format", default="parquet", help="of the output: parquet, jsonl, npy")
    options.add_argument("--output", type=Path, default=Path(".bench/bulk"))
    arguments = options.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    artifact = poolc.compile(model_or_default(arguments.model), precision=arguments.precision).path
    found = measure(artifact, arguments)
    print(table(found))
    write(found, arguments.json)
    plot(found, arguments.output / "bulk.svg")


def measure(artifact: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the raw engine, the job, and the raw engine again."""
    inputs = arguments.output / f"rows-{arguments.rows}.jsonl"
    write_rows(inputs, arguments.data, arguments.rows)
    texts = list(itertools.islice(queries(arguments.data), arguments.raw_rows))
    before = raw_rate(artifact, texts)
    output = arguments.output / f"vectors.{arguments.format}"
    done, samples = run_job(artifact, inputs, output)
    after = raw_rate(artifact, texts)
    raw = (before + after) / 2
    rate = done["tokens"] / done["seconds"]
    return {
        "rows": done["rows"],
        "seconds": done["seconds"],
        "tokens_per_second": rate,
        "padding": 1 - done["tokens"] / done["computed_tokens"],
        "raw_tokens_per_second": [before, after],
        "share_of_raw": rate / raw,
        "output_bytes": output.stat().st_size,
        "samples": samples,
    }


def write_rows(path: Path, data: Path | None, rows: int) -> None:
    """Write so many rows of JSON, unless they are there."""
    if path.exists():
        return
    draft = path.with_suffix(".draft")
    with draft.open("w", encoding="utf-8") as file:
        for number, text in enumerate(itertools.islice(_endless(data), rows)):
            file.write(json.dumps({"id": number, "text": text}) + "\n")
    draft.replace(path)


def _endless(data: Path | None) -> Iterator[str]:
    if data is None:
        return queries(None)
    return itertools.cycle(queries(data))


def raw_rate(artifact: Path, texts: list[str]) -> float:
    """Return tokens a second of an engine alone, tokenising included."""
    code = (
        "import json, sys, time, poolc\n"
        "engine = poolc.load(sys.argv[1]); texts = json.load(sys.stdin)\n"
        "tokens = sum(len(engine.tokenize(text)) for text in texts)\n"
        "engine.embed(texts[:256]); start = time.perf_counter()\n"
        "for vector in engine.embed_iter(texts): pass\n"
        "print(tokens / (time.perf_counter() - start))\n"
    )
    command = [sys.executable, "-c", code, str(artifact)]
    done = subprocess.run(
        command, input=json.dumps(texts), check=True, capture_output=True, text=True
    )
    return float(done.stdout)


def run_job(
    artifact: Path, inputs: Path, output: Path
) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """Run the job; return its last event, and rows and memory every second."""
    command = [sys.executable, "-m", "poolc", "embed", str(artifact), str(inputs)]
    command += ["-o", str(output), "--json", "--restart"]
    samples: list[dict[str, float]] = []
    done: dict[str, Any] = {}
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as process:
        assert process.stderr is not None
        start = time.perf_counter()
        for line in process.stderr:
            event = json.loads(line)
            if event["event"] == "done":
                done = event
            elif event["event"] == "progress":
                samples.append(
                    {
                        "at_s": round(time.perf_counter() - start, 2),
                        "rows": event["rows"],
                        "memory_bytes": proportional_bytes(process.pid),
                    }
                )
    if process.returncode or not done:
        raise SystemExit(f"poolc embed ended with exit code {process.returncode}")
    return done, samples


def minutes(samples: list[dict[str, float]]) -> list[dict[str, float]]:
    """Return rows and the most memory of each whole minute."""
    found = []
    for minute, group in itertools.groupby(samples, lambda s: int(s["at_s"] // 60)):
        members = list(group)
        found.append(
            {
                "minute": minute,
                "rows": members[-1]["rows"],
                "memory_bytes": max(member["memory_bytes"] for member in members),
            }
        )
    before = [0.0, *(one["rows"] for one in found)]
    return [one | {"new_rows": one["rows"] - b} for one, b in zip(found, before, strict=False)]


def table(found: dict[str, Any]) -> str:
    """Return the figures as text."""
    lines = [
        f"{found['rows']:,} rows in {found['seconds']:.0f} s: "
        f"{found['tokens_per_second']:,.0f} tokens/s, padding {100 * found['padding']:.1f} %",
        "raw engine before and after: "
        + ", ".join(f"{rate:,.0f} tokens/s" for rate in found["raw_tokens_per_second"])
        + f"; the job ran at {100 * found['share_of_raw']:.1f} % of it",
        "",
        "| minute | rows | memory, MB |",
        "| --- | --- | --- |",
    ]
    lines += [
        f"| {one['minute']:.0f} | {one['new_rows']:,.0f} | {one['memory_bytes'] / 1e6:,.0f} |"
        for one in minutes(found["samples"])
    ]
    return "\n".join(lines)


def plot(found: dict[str, Any], path: Path) -> None:
    """Draw rows a minute and memory over time; says so where matplotlib is not installed."""
    try:
        from matplotlib import pyplot
    except ModuleNotFoundError:
        print("no plot: matplotlib is not installed")
        return
    samples = found["samples"]
    figure, (upper, lower) = pyplot.subplots(2, 1, sharex=True, figsize=(7, 5))
    pairs = list(zip(samples[:-10], samples[10:], strict=True))
    times = [after["at_s"] / 60 for _, after in pairs]
    rates = [60 * (b["rows"] - a["rows"]) / (b["at_s"] - a["at_s"]) for a, b in pairs]
    upper.plot(times, rates)
    upper.set_ylabel("rows a minute")
    lower.plot([s["at_s"] / 60 for s in samples], [s["memory_bytes"] / 1e6 for s in samples])
    lower.set_ylabel("memory, MB")
    lower.set_xlabel("minutes")
    for panel in (upper, lower):
        panel.set_ylim(bottom=0)
        panel.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
