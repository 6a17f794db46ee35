"""The table of exit codes covers every error, and says so to users."""

from __future__ import annotations

import inspect

import pytest

from poolc import errors
from poolc.cli.exit_codes import EXIT_CODES, exit_code, table

ALL_ERRORS = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, errors.PoolcError)
]


def test_codes_differ() -> None:
    codes = [row.code for row in EXIT_CODES]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("error", ALL_ERRORS)
def test_subclasses_are_not_hidden(error: type[Exception]) -> None:
    """The first row that matches a class is the most special one that does."""
    rows = [row for row in EXIT_CODES if row.error is not None and issubclass(error, row.error)]
    assert all(not issubclass(later.error or error, rows[0].error or error) for later in rows[1:])
    assert exit_code(error("x")) == rows[0].code


def test_table_lists_every_code() -> None:
    lines = table().splitlines()
    assert [int(line.split()[0]) for line in lines] == sorted(row.code for row in EXIT_CODES)
