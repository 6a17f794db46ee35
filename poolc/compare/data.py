"""The texts that two models are compared on, read of any file that bulk jobs read.

Single texts, or pairs of them; with a ``label`` (of texts) or a ``score`` (of pairs) a task metric
is measured too, in the columns that ``poolc compile --quality`` reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from poolc.errors import InvalidOption, InvalidText
from poolc.runtime.bulk import Columns, lines, tables
from poolc.runtime.bulk.columns import RowReader, Text
from poolc.runtime.bulk.formats import TABLES, Format
from poolc.runtime.bulk.inputs import STDIN, Source, expand
from poolc.runtime.bulk.records import Record, TableRow, check_inputs, read_records
from poolc.runtime.quality import PAIRS

_LABEL, _SCORE = "label", "score"


@dataclass(frozen=True, slots=True)
class Data:
    """Texts [n], or pairs of texts [n]; ``labels`` [n] where every row has one, else None."""

    file: str
    texts: list[str]
    pairs: list[tuple[str, str]]
    labels: list[Any] | None

    @property
    def num_rows(self) -> int:
        """Texts or pairs."""
        return len(self.pairs) or len(self.texts)


def read(path: str | Path, columns: Columns | None = None, limit: int | None = None) -> Data:
    """Read a file of texts or pairs, at most the first ``limit`` rows.

    Pairs are what ``columns`` name as left and right, or what the first row has: text_1 and text_2,
    query and document, sentence1 and sentence2, s1 and s2. Raises InputError with file and line for
    a row that cannot be read, InvalidOption for a file that cannot.
    """
    if str(path) == STDIN:
        raise InvalidOption(
            "two models read the texts, and one of standard input is gone: give a file",
            param="data",
        )
    sources = expand([path])
    columns, label = _chosen(sources, columns or Columns())
    pairs = columns.left is not None
    check_inputs(sources, columns, pairs=pairs)
    items, labels = list[Any](), list[Any]()
    for record in islice(read_records(sources, columns, pairs=pairs), limit):
        items.append(_item(record))
        if label is not None:
            labels.append(_kept(record)[label])
    if not items:
        raise InvalidOption(f"{path} holds no text", param="data")
    texts, of_pairs = ([], items) if pairs else (items, [])
    return Data(Path(str(path)).name, texts, of_pairs, labels if label is not None else None)


def _chosen(sources: Sequence[Source], columns: Columns) -> tuple[Columns, str | None]:
    """Return the columns of texts or of pairs, and that of labels, by the first row."""
    row = _first_row(sources[0])
    if columns.left is None and columns.text == Columns().text and columns.text not in row:
        found = next((names for names in PAIRS if set(names) <= set(row)), None)
        if found is not None:
            columns = replace(columns, left=found[0], right=found[1])
    label = _LABEL if columns.left is None else _SCORE
    return (replace(columns, keep=(label,)), label) if label in row else (columns, None)


class _AnyRow(RowReader):
    """Takes every row, whatever its columns are."""

    def __init__(self) -> None:
        super().__init__(Columns(), pairs=False)

    def names(self, present: Sequence[str]) -> list[str] | None:
        return None

    def text(self, row: Mapping[str, Any]) -> Text:
        return ""

    def id(self, row: Mapping[str, Any]) -> Any:
        return None

    def kept(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        return row


def _first_row(source: Source) -> Mapping[str, Any]:
    """Return the first row of a file with columns; nothing of one without."""
    if source.format is Format.TEXT:
        return {}
    reader = tables.read if source.format in TABLES else lines.read
    record = next(reader(source, 0, _AnyRow(), 0), None)
    return {} if record is None or record.error is not None else _kept(record)


def _item(record: Record) -> Text:
    if record.error is not None:
        raise record.error
    item = record.item
    if not (all(item) if isinstance(item, tuple) else item):
        raise InvalidText(f"{record.place}: a text is empty: remove the row, or fill it")
    return item


def _kept(record: Record) -> Mapping[str, Any]:
    kept = record.kept
    if isinstance(kept, TableRow):
        (row,) = kept.batch.slice(kept.row, 1).to_pylist()
        return dict(row)
    return kept or {}
