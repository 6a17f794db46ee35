"""docs/models.json -> docs/models.md: a pure function, so that a test can hold them equal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

_DOCS = Path(__file__).resolve().parents[2] / "docs"
MEASURED = _DOCS / "models.json"
PAGE = _DOCS / "models.md"
BOUND = 1e-5

_INTRODUCTION = """\
# Models: families and heads

Generated from `models.json` by `make models`; do not edit.

Each number is the largest difference between poolc and the library that defines the model
(sentence-transformers or transformers, fp32, eager attention, one text at a time), divided by
max(1, largest value of the reference). The bound is 1e-5. The models are small: two layers of 32,
random weights, saved as a user would have them, with the family's own tokenizer trained on a few
lines. The texts are of 1 to 64 tokens in several scripts, and longer ones that are cut; windows
and buckets of attention are so small that the texts go beyond them. poolc runs them in one batch
and each alone.

All families take the same path: whatever transformers loads and torch exports. Checkpoints of GTE
(new-impl), NomicBERT and Jina v3 in their authors' layout have their settings translated first, and
one adapter of Jina v3 is merged (`hf_overrides {"jina_task": ...}`, text-matching if not said).
"""


def render(measured: Mapping[str, Any]) -> str:
    """Return the page."""
    heads, families = measured["heads"], measured["families"]
    found = {(cell["family"], cell["head"]): cell for cell in measured["cells"]}
    notes: list[str] = []
    lines = [_INTRODUCTION, _row(["family", *heads.values()]), _row(["---"] * (1 + len(heads)))]
    for family, title in families.items():
        row = [_entry(found.get((family, head)), notes) for head in heads]
        lines.append(_row([title, *row]))
    lines += ["", *_notes(notes), *_summary(measured)]
    return "\n".join(lines) + "\n"


def failures(measured: Mapping[str, Any]) -> list[str]:
    """Return a line for each cell that failed or is out of bounds."""
    lines = []
    for cell in measured["cells"]:
        name = f"{cell['family']}/{cell['head']}"
        if "failed" in cell:
            lines.append(f"{name}: {cell['failed']}")
        elif "reason" not in cell and not (cell["error"] <= BOUND and cell["invariance"] <= BOUND):
            lines.append(f"{name}: {cell['error']:.2g}, invariance {cell['invariance']:.2g}")
    return lines


def _entry(cell: Mapping[str, Any] | None, notes: list[str]) -> str:
    if cell is None:
        return "not measured"
    if "error" in cell:
        return f"{cell['error']:.1e}"
    reason = cell.get("failed") or cell["reason"]
    if reason not in notes:
        notes.append(reason)
    return f"({notes.index(reason) + 1})" if "reason" in cell else f"FAILED ({len(notes)})"


def _row(values: list[str]) -> str:
    return f"| {' | '.join(values)} |"


def _notes(notes: list[str]) -> list[str]:
    return [f"({place}) {note}.  " for place, note in enumerate(notes, 1)] + [""]


def _summary(measured: Mapping[str, Any]) -> list[str]:
    cells = [cell for cell in measured["cells"] if "error" in cell]
    cosines = [cell["worst_cosine"] for cell in cells if cell.get("worst_cosine") is not None]
    tools = ", ".join(f"{name} {version}" for name, version in measured["tools"].items())
    return [
        f"{len(cells)} cells measured: largest error {max(c['error'] for c in cells):.1e}, worst "
        f"cosine {min(cosines, default=1.0):.7f}, largest difference between a text alone and in "
        f"a batch {max(c['invariance'] for c in cells):.1e}, longest text "
        f"{max(c['longest'] for c in cells)} tokens.",
        "",
        f"Measured with {tools}.",
    ]
