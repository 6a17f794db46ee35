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
# Models: families, heads and checkpoints

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

_CHECKPOINTS = """\
## Checkpoints of their own kind

Models whose files, heads or texts are more than a family with a head: each is measured as the cells
above are, on a small model in the layout of the published ones. Where a repository brings Python of
its own (`trust_remote_code`), that is not run here, which the note says: the folder has the
published layout of tensors and settings (with a small modelling file of ours for InternLM2 and
Qwen2.5-Math), and the reference is NumPy written from that layout, or transformers' class of the
same model with settings and adapters translated by hand. "Alone or in a batch" is the largest
difference that it makes to an item; the longest item is in tokens.
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
    lines += ["", *_notes(notes), _summary(measured), "", *_checkpoints(measured)]
    tools = ", ".join(f"{name} {version}" for name, version in measured["tools"].items())
    return "\n".join([*lines, "", f"Measured with {tools}."]) + "\n"


def failures(measured: Mapping[str, Any]) -> list[str]:
    """Return a line for each cell and checkpoint that failed or is out of bounds."""
    lines = []
    named = [(cell_name(cell), cell) for cell in measured["cells"]]
    named += [(row["checkpoint"], row) for row in measured["checkpoints"]]
    for name, cell in named:
        if "failed" in cell:
            lines.append(f"{name}: {cell['failed']}")
        elif "reason" not in cell and not (cell["error"] <= BOUND and cell["invariance"] <= BOUND):
            lines.append(f"{name}: {cell['error']:.2g}, invariance {cell['invariance']:.2g}")
    return lines


def cell_name(cell: Mapping[str, Any]) -> str:
    """Return what a result of the first table is known by."""
    return f"{cell['family']}/{cell['head']}"


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


def _summary(measured: Mapping[str, Any]) -> str:
    cells = [cell for cell in measured["cells"] if "error" in cell]
    cosines = [cell["worst_cosine"] for cell in cells if cell.get("worst_cosine") is not None]
    return (
        f"{len(cells)} cells measured: largest error {max(c['error'] for c in cells):.1e}, worst "
        f"cosine {min(cosines, default=1.0):.7f}, largest difference between a text alone and in "
        f"a batch {max(c['invariance'] for c in cells):.1e}, longest text "
        f"{max(c['longest'] for c in cells)} tokens."
    )


_COLUMNS = [
    *("checkpoint", "published", "tasks", "compared with"),
    *("error", "alone or in a batch", "longest", "note"),
]


def _checkpoints(measured: Mapping[str, Any]) -> list[str]:
    rows = [_checkpoint(row) for row in measured["checkpoints"]]
    return [_CHECKPOINTS, *map(_row, [_COLUMNS, ["---"] * len(_COLUMNS), *rows])]


def _checkpoint(row: Mapping[str, Any]) -> list[str]:
    if "failed" in row:
        return [row["title"], row["mirrors"], "", "", "FAILED", "", "", row["failed"]]
    figures = [f"{row['error']:.1e}", f"{row['invariance']:.1e}", str(row["longest"])]
    tasks = ", ".join(row["tasks"])
    return [row["title"], row["mirrors"], tasks, row["reference"], *figures, row["note"]]
