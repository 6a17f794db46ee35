"""Which columns of a row are its text, its pair of texts and its id.

A text is a column, or a template over several: "{title}: {body}". Knows nothing about files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any

from poolc.errors import InvalidOption, InvalidText

ID_COLUMN = "id"
# Columns that a pair is looked for in, when none were named.
PAIR_COLUMNS = (
    ("text_1", "text_2"),
    ("query", "document"),
    ("sentence1", "sentence2"),
)
KEEP_ALL = "all"

Text = str | tuple[str, str]
Picker = Callable[[Mapping[str, Any]], Text]


@dataclass(frozen=True, slots=True)
class Columns:
    """Where the texts are, and what else of a row goes to the output.

    ``text``, ``left`` and ``right`` are columns or templates; an unnamed pair is looked for in the
    first row. ``id`` None: the column "id" where there is one. ``keep``: columns that the answers
    are appended to, ("all",) for all of them.
    """

    text: str = "text"
    left: str | None = None
    right: str | None = None
    id: str | None = None
    keep: tuple[str, ...] = ()

    @property
    def keeps_all(self) -> bool:
        """Whether every column of the input is kept."""
        return self.keep == (KEEP_ALL,)


@dataclass(frozen=True, slots=True)
class _Template:
    """Literal text and the name of a column, alternating; a lone column has no literals."""

    given: str
    parts: tuple[tuple[str, str | None], ...]

    @property
    def names(self) -> list[str]:
        return [name for _, name in self.parts if name is not None]

    def fill(self, row: Mapping[str, Any]) -> str:
        return "".join(
            text if name is None else f"{text}{_text(row, name)}" for text, name in self.parts
        )


class RowReader:
    """Makes texts of rows. Raises InvalidOption for a template that cannot be read."""

    def __init__(self, columns: Columns, *, pairs: bool) -> None:
        if (columns.left is None) != (columns.right is None):
            raise InvalidOption("a pair has two columns: name both or none", param="columns")
        self._columns = columns
        self._pairs = pairs
        self._text: _Template | None = None
        self._sides: tuple[_Template, _Template] | None = None
        if not pairs:
            self._text = parse_template(columns.text)
        elif columns.left is not None and columns.right is not None:
            self._sides = parse_template(columns.left), parse_template(columns.right)

    def names(self, present: Sequence[str]) -> list[str] | None:
        """Return the columns that are needed of a table that has ``present``; None: all."""
        if self._columns.keeps_all:
            return None
        templates = [self._text] if self._text else list(self._sides or ())
        needed = [name for template in templates if template for name in template.names]
        if not templates:
            needed = [name for pair in PAIR_COLUMNS for name in pair]
        if templates and not {*needed, *self._columns.keep} <= set(present):
            return None  # so that the message can list what is there
        wanted = [*needed, self._columns.id or ID_COLUMN, *self._columns.keep]
        return [name for name in present if name in wanted] or None

    def text(self, row: Mapping[str, Any]) -> Text:
        """Return the text or pair of a row. Raises InvalidText."""
        if self._text is not None:
            return self._text.fill(row)
        if self._sides is None:
            left, right = _find_pair(row)
            self._sides = parse_template(left), parse_template(right)
        return self._sides[0].fill(row), self._sides[1].fill(row)

    def id(self, row: Mapping[str, Any]) -> Any:
        """Return the id of a row, None where it has none. Raises InvalidText for a named column."""
        name = self._columns.id
        if name is None:
            return row.get(ID_COLUMN)
        if name not in row:
            raise InvalidText(f"no column {name!r}; it has {_names(row)}: name the column")
        return row[name]

    def kept(self, row: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return the columns that are kept. Raises InvalidText for one that is not there."""
        if not self._columns.keep:
            return None
        if self._columns.keeps_all:
            return row
        for name in self._columns.keep:
            if name not in row:
                raise InvalidText(f"no column {name!r} to keep; it has {_names(row)}")
        return {name: row[name] for name in self._columns.keep}


def parse_template(given: str) -> _Template:
    """Read a column's name, or a template with names in braces; {{ and }} are braces.

    Raises InvalidOption for one without a name, or with more than names in braces.
    """
    if "{" not in given and "}" not in given:
        return _Template(given, (("", given),))
    try:
        found = list(Formatter().parse(given))
    except ValueError as error:
        raise InvalidOption(f"the template {given!r}: {error}", param="columns") from None
    for _, name, spec, conversion in found:
        if name is not None and (not name or spec or conversion):
            raise InvalidOption(
                f"the template {given!r}: braces hold the name of a column and nothing else",
                param="columns",
            )
    if all(name is None for _, name, _, _ in found):
        raise InvalidOption(f"the template {given!r} names no column", param="columns")
    return _Template(given, tuple((text, name) for text, name, _, _ in found))


def _find_pair(row: Mapping[str, Any]) -> tuple[str, str]:
    for left, right in PAIR_COLUMNS:
        if left in row and right in row:
            return left, right
    known = " or ".join(f"{left} and {right}" for left, right in PAIR_COLUMNS)
    raise InvalidText(f"no pair of columns {known}; it has {_names(row)}: name the two columns")


def _text(row: Mapping[str, Any], column: str) -> str:
    if column not in row:
        raise InvalidText(f"no column {column!r}; it has {_names(row)}: name the column")
    value = row[column]
    if not isinstance(value, str):
        raise InvalidText(f"column {column!r} must be a string, not {kind_of(value)}")
    return value


def _names(row: Mapping[str, Any]) -> str:
    return ", ".join(repr(name) for name in row) or "none"


def kind_of(value: Any) -> str:
    """Return what a message calls a value."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    kinds = {dict: "an object", list: "a list", str: "a string", int: "a number", float: "a number"}
    return kinds.get(type(value), f"a {type(value).__name__}")
