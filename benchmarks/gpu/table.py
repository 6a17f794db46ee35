"""The results as Markdown: docs/benchmarks/gpu.md is made of the JSON."""

from __future__ import annotations

from typing import Any

from benchmarks.gpu.compiling import CUDA, Wanted
from benchmarks.gpu.shapes import SHAPES


def summary(found: dict[str, Any]) -> str:
    """Return the tables of speed and parity; what was not run is left out."""
    parts = [_speed(found), _shares(found), _parity(found)]
    return "\n\n".join(part for part in parts if part)


def _speed(found: dict[str, Any]) -> str:
    rows = [
        "| model | precision | texts | poolc texts/s | Sentence Transformers texts/s | ratio "
        "| ratio without tokenising |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for key, one in found.get("speed", {}).items():
        title = SHAPES[key.partition("-" + _shown(one))[0]].title
        for name, got in one["workloads"].items():
            rows.append(
                f"| {title} | {_shown(one)} | {name} | {got['poolc']:,.0f} "
                f"| {got['sentence_transformers']:,.0f} | {got['ratio']:.2f}x "
                f"| {got['ratio_tokens']:.2f}x |"
            )
    return "\n".join(rows) if len(rows) > 2 else ""


def _shares(found: dict[str, Any]) -> str:
    rows = [
        "| model | precision | 32 texts of 512 tokens | share of the matrix peak "
        "| Sentence Transformers | a query, ms: graphs, none, Sentence Transformers |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for key, one in found.get("speed", {}).items():
        title = SHAPES[key.partition("-" + _shown(one))[0]].title
        full, latency = one["full"], one["latency"]
        plain = f"{latency['plain']:.2f}" if "plain" in latency else "-"
        rows.append(
            f"| {title} | {_shown(one)} | {full['ms']:.2f} ms | {100 * full['share']:.0f} % "
            f"| {full['peer_ms']:.2f} ms, {100 * full['peer_share']:.0f} % "
            f"| {latency['graphs']:.2f}, {plain}, {latency['peer']:.2f} |"
        )
    return "\n".join(rows) if len(rows) > 2 else ""


def _parity(found: dict[str, Any]) -> str:
    rows = [
        "| family | precision | error | worst cosine | layout |",
        "| --- | --- | --- | --- | --- |",
    ]
    for one in sorted(found.get("families", []), key=lambda f: (f["family"], _shown(f))):
        if "max_relative_error" in one:
            cosine = one["worst_cosine"]  # of vectors; logits are too few numbers for one
            shown = "-" if cosine is None else f"{cosine:.7f}"
            figures = f"{one['max_relative_error']:.1e} | {shown}"
            rows.append(f"| {one['family']} | {_shown(one)} | {figures} | {one['layout']} |")
        else:
            said = one.get("failed") or "not in this transformers"
            rows.append(f"| {one['family']} | {_shown(one)} | {said} | | |")
    return "\n".join(rows) if len(rows) > 2 else ""


def _shown(one: dict[str, Any]) -> str:
    return Wanted(one.get("target", CUDA), one["precision"]).name
