"""A bulk job over many rows: rows a minute, memory over time, and the share of the raw engine.

    python -m benchmarks.bulk [--model M] [--data DIR] [--rows 1000000] [--json FILE]
    python -m benchmarks.bulk --texts documents --rows 6000 --rounds 3 --data DIR [--json FILE]

Writes the rows as JSON lines (generated, the same every time, or those of ``--data`` again and
again), runs ``poolc embed`` on them in a process of its own, and reads its events and its memory
meanwhile. The raw engine is ``Engine.embed_iter`` over the first ``--raw-rows`` of the same texts,
read into a list before and thrown away after. It runs before and after each job, which is compared
with the mean of both: a machine that changes its speed meanwhile shows. ``benchmarks.plots FOLDER``
draws the JSON files of a folder, with matplotlib.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import poolc
from benchmarks.options import model_or_default, parser, write
from benchmarks.process import proportional_bytes
from benchmarks.workload import documents, queries

TEXTS = {"queries": queries, "documents": documents}


def main() -> None:
    """Run the jobs and print what they did."""
    options = parser("A bulk job over many rows")
    options.add_argument("--texts", choices=list(TEXTS), default="queries")
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--raw-rows", type=int, default=65_536)
    options.add_argument("--rounds", type=int, default=1)
    options.add_argument("--precision", default="fp32")
    options.add_argument("--format", default="parquet", help="of the output: parquet, jsonl, npy")
    options.add_argument("--output", type=Path, default=Path(".bench/bulk"))
    arguments = options.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    artifact = poolc.compile(model_or_default(arguments.model), precision=arguments.precision).path
    found = measure(artifact, arguments)
    print(table(found))
    write(found, arguments.json)


def measure(artifact: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the raw engine before and after every job."""
    inputs = arguments.output / f"{arguments.texts}-{arguments.rows}.jsonl"
    write_rows(inputs, endless(arguments.texts, arguments.data), arguments.rows)
    num_raw = min(arguments.rows, arguments.raw_rows)
    texts = list(itertools.islice(endless(arguments.texts, arguments.data), num_raw))
    output = arguments.output / f"vectors.{arguments.format}"
    samples: list[dict[str, float]] = []
    raw, jobs = [raw_rate(artifact, texts)], []
    for _ in range(arguments.rounds):
        done, samples = run_job(artifact, inputs, output)
        jobs.append(done)
        raw.append(raw_rate(artifact, texts))
    rates = [done["tokens"] / done["seconds"] for done in jobs]
    shares = [
        rate / statistics.mean(around)
        for rate, around in zip(rates, itertools.pairwise(raw), strict=True)
    ]
    last = jobs[-1]
    return {
        "texts": arguments.texts,
        "rows": last["rows"],
        "seconds": last["seconds"],
        "tokens_per_second": rates,
        "padding": 1 - last["tokens"] / last["computed_tokens"],
        "raw_tokens_per_second": raw,
        "shares_of_raw": shares,
        "share_of_raw": statistics.median(shares),
        "output_bytes": output.stat().st_size,
        "samples": samples,
    }


def write_rows(path: Path, texts: Iterator[str], rows: int) -> None:
    """Write so many rows of JSON, unless they are there."""
    if path.exists():
        return
    draft = path.with_suffix(".draft")
    with draft.open("w", encoding="utf-8") as file:
        for number, text in enumerate(itertools.islice(texts, rows)):
            file.write(json.dumps({"id": number, "text": text}) + "\n")
    draft.replace(path)


def endless(kind: str, data: Path | None) -> Iterator[str]:
    """Yield queries or documents, those of a data folder again and again."""
    made = TEXTS[kind](data)
    return made if data is None else itertools.cycle(made)


def raw_rate(artifact: Path, texts: list[str]) -> float:
    """Return tokens a second of an engine alone, tokenising included; long texts are cut, as a
    job cuts them.
    """
    code = (
        "import json, sys, time, poolc\n"
        "from poolc.runtime.request import Params\n"
        "from poolc.spec import Task\n"
        "engine = poolc.load(sys.argv[1]); texts = json.load(sys.stdin)\n"
        "prepared = engine.prepare(Task.EMBED, texts, Params(truncate=True))\n"
        "tokens = sum(len(sequence) for sequence in prepared.sequences)\n"
        "del prepared; engine.embed(texts[:256], truncate=True); start = time.perf_counter()\n"
        "for vector in engine.embed_iter(texts, truncate=True): pass\n"
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
    command += ["-o", str(output), "--truncate", "--json", "--restart"]
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
        f"{_listed(found['tokens_per_second'])} tokens/s, padding {100 * found['padding']:.1f} %",
        f"raw engine before and after: {_listed(found['raw_tokens_per_second'])} tokens/s",
        "the job ran at "
        + ", ".join(f"{100 * share:.1f}" for share in found["shares_of_raw"])
        + " % of it",
        "",
        "| minute | rows | memory, MB |",
        "| --- | --- | --- |",
    ]
    lines += [
        f"| {one['minute']:.0f} | {one['new_rows']:,.0f} | {one['memory_bytes'] / 1e6:,.0f} |"
        for one in minutes(found["samples"])
    ]
    return "\n".join(lines)


def _listed(rates: list[float]) -> str:
    return ", ".join(f"{rate:,.0f}" for rate in rates)


if __name__ == "__main__":
    main()
