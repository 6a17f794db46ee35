"""The page ``docs/scale.md``: what a billion documents take, by measured rates and stated guesses.

    python -m benchmarks.scale [LEDGER.json]

A file that is named, of ``benchmarks.ledger``, is first copied to ``docs/benchmarks/ledger.json``.
The rates of GPUs are those of ``docs/benchmarks/gpu.json``. What is neither measured nor a price
list is an ``Assumption`` and is shown as one. The words are those of ``scale_template.md``.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.environments import ROOT
from benchmarks.gpu.shapes import SHAPES, USUAL
from benchmarks.tables import table

FOLDER = ROOT / "docs" / "benchmarks"
PAGE, LEDGER, GPU = ROOT / "docs" / "scale.md", FOLDER / "ledger.json", FOLDER / "gpu.json"
TEMPLATE = ROOT / "benchmarks" / "scale_template.md"
Found = Mapping[str, Any]

DOCUMENTS = 1_000_000_000
TOKENS = 512  # of a document: the long texts of the measurement
_GPUS = (1, 8, 32, 128)
_SIZES = (384, 768, 1024)
# Two on the engine, one of them half done, and one that waits to be written.
_LOST_PARTS = 2.5


@dataclass(frozen=True, slots=True)
class Assumption:
    """A number that was not measured here, and where it comes from."""

    value: float
    said: str
    source: str


GPU_HOUR = Assumption(4.0, "a GPU of the H200 class, dollars an hour", "guess; put yours in")
SPOT = Assumption(0.05, "interruptions of an interruptible GPU, an hour", "guess, on the high side")
FAILURE = Assumption(
    419 / (16_384 * 54 * 24),
    "failures of a GPU or its machine, an hour",
    "419 unexpected interruptions in 54 days of 16,384 GPUs: The Llama 3 Herd of Models, 2024, "
    "section 3.3.4",
)
RESTART_S = Assumption(120.0, "seconds until an interrupted job runs again", "guess: a new machine")
TEXT_BYTES = Assumption(
    4.7 * TOKENS, f"bytes of a document of {TOKENS} tokens", "guess: English, 4.7 bytes a token"
)
STORED_MONTH = Assumption(
    0.023, "dollars a GB and month in an object store", "S3 Standard's list price in us-east-1"
)
PUTS = Assumption(5e-6, "dollars a PUT", "S3 Standard's list price in us-east-1")
ASSUMED = (GPU_HOUR, SPOT, FAILURE, RESTART_S, TEXT_BYTES, STORED_MONTH, PUTS)


def main() -> None:
    """Make the page."""
    if len(sys.argv) > 1:
        shutil.copyfile(sys.argv[1], LEDGER)
    PAGE.write_text(page(read()), encoding="utf-8")


def read() -> dict[str, Any]:
    """Return what was measured: the ledger, and texts a second of each model."""
    first, *_ = json.loads(GPU.read_text(encoding="utf-8"))["runs"]
    ledger = json.loads(LEDGER.read_text(encoding="utf-8"))
    return {"ledger": ledger, "rates": rates(first["found"]["speed"])}


def rates(speed: Mapping[str, Any]) -> dict[str, float]:
    """Return texts of 512 tokens a second, in fp16 on one GPU, by model."""
    return {
        SHAPES[name].title: round(speed[f"{name}-fp16"]["workloads"]["long"]["poolc"])
        for name in USUAL
    }


def page(found: Found) -> str:
    """Return the whole page."""
    ledger, rate = found["ledger"], found["rates"]["BERT-base"]
    parts = math.ceil(DOCUMENTS / ledger["rows_a_part"])
    part_s, commit = ledger["rows_a_part"] / rate, ledger["durable"]
    assumed = [(one.said, f"{one.value:.3g}", one.source) for one in ASSUMED]
    return TEMPLATE.read_text(encoding="utf-8").format(
        documents=f"{DOCUMENTS:,}",
        tokens=TOKENS,
        trillions=f"{DOCUMENTS * TOKENS / 1e12:.2f}",
        parts=f"{parts:,}",
        rows_a_part=f"{ledger['rows_a_part']:,}",
        simulated=f"{ledger['parts']:,}",
        part_s=f"{part_s:.1f}",
        commit_ms=f"{commit['p50_ms']:.2f}",
        commit_p99_ms=f"{commit['p99_ms']:.2f}",
        commit_share=f"{commit['p50_ms'] / 1000 / part_s:.4%}",
        small_parts=f"{math.ceil(DOCUMENTS / 1000):,}",
        text_tb=f"{DOCUMENTS * TEXT_BYTES.value / 1e12:.1f}",
        puts=f"{2 * parts:,}",
        puts_dollars=f"{2 * parts * PUTS.value:.2f}",
        open_s=f"{ledger['open_cpu_seconds']:.0f}",
        computing=_computing(found["rates"]),
        interruptions=_interruptions(ledger, rate),
        storing=_storing(),
        ledger=_simulated(ledger),
        before=_before(ledger),
        assumed=table(("what", "value", "source"), assumed),
    )


def _computing(speeds: Mapping[str, float]) -> str:
    rows = []
    for name, rate in speeds.items():
        hours = DOCUMENTS / rate / 3600
        times = [_duration(hours / count) for count in _GPUS]
        dollars = f"{hours * GPU_HOUR.value:,.0f}"
        rows.append((name, f"{rate:,.0f}", f"{hours:,.0f}", *times, dollars))
    counts = [f"{n} GPU{'s' if n > 1 else ''}" for n in _GPUS]
    return table(("model, fp16", "texts/s", "GPU hours", *counts, "dollars"), rows)


def _interruptions(ledger: Found, rate: float) -> str:
    hours = DOCUMENTS / rate / 3600
    parts_s = _LOST_PARTS * ledger["rows_a_part"] / rate
    lost_s = parts_s + RESTART_S.value + ledger["open_cpu_seconds"]
    rows = []
    for name, chance in (("failures", FAILURE.value), ("interruptible GPUs", SPOT.value)):
        count = hours * chance
        share = count * lost_s / 3600 / hours
        rows.append((name, f"{count:,.2g}", f"{lost_s:,.0f}", f"{100 * share:.2g} %"))
    return table(("by", "in the whole job", "seconds lost each", "of all GPU time"), rows)


def _storing() -> str:
    rows = []
    for name, num_bytes in (("float32", 4), ("float16", 2), ("int8", 1), ("binary", 1 / 8)):
        sizes = [DOCUMENTS * size * num_bytes / 1e12 for size in _SIZES]
        month = 1000 * sizes[1] * STORED_MONTH.value
        rows.append((name, *(f"{size:,.2f}" for size in sizes), f"{month:,.0f}"))
    sizes_told = [f"TB of {size:,} numbers" for size in _SIZES]
    return table(("vectors", *sizes_told, f"dollars a month of {_SIZES[1]}"), rows)


def _simulated(ledger: Found) -> str:
    size, memory = ledger["ledger_bytes"] / 1e6, ledger["open_peak_bytes"] / 1e6
    empty = ledger["empty_peak_bytes"] / 1e6
    rows = [
        ("parts", f"{ledger['parts']:,}, of {ledger['parts'] * ledger['rows_a_part']:,} rows"),
        ("ledger", f"{size:,.0f} MB, {ledger['bytes_a_part']:.0f} bytes a part"),
        (
            "opened, checked against its files, ready to go on",
            f"{ledger['open_cpu_seconds']:.1f} s of processor time",
        ),
        ("memory of that", f"{memory:,.0f} MB ({empty:,.0f} MB without parts)"),
        ("killed with SIGKILL while committing", f"{len(ledger['kills'])} times"),
        ("cut off within its last line", f"{len(ledger['cuts'])} times"),
        ("committed parts that the next process did not find", f"{ledger['lost_parts']}"),
    ]
    return table(("what", ""), rows)


def _before(ledger: Found) -> str:
    """Say what changed when ledgers were first read line by line."""
    old, new = ledger["before"], ledger["since"]
    return (
        f"Read at once, as poolc did before, a ledger of {old['parts']:,} parts took "
        f"{old['cpu_seconds']:.1f} s and {old['peak_bytes'] / 1e6:,.0f} MB; read line by line, "
        f"{new['cpu_seconds']:.1f} s and {new['peak_bytes'] / 1e6:,.0f} MB."
    )


def _duration(hours: float) -> str:
    return f"{hours / 24:.1f} d" if hours >= 48 else f"{hours:.1f} h"


if __name__ == "__main__":
    main()
