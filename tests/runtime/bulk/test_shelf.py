"""A ledger on a disk and in a store: read line by line, cut behind its last whole line."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest

from poolc.runtime.bulk import storage
from poolc.runtime.bulk.remote import RemoteShelf
from poolc.runtime.bulk.shelf import LocalShelf, Shelf, has_ledger

ENTRIES = [{"kind": "part", "number": i, "text": "é" * i} for i in range(600)]
Make = Callable[[], Shelf]


def local(folder: Path) -> Shelf:
    return LocalShelf(folder / "job")


def remote(folder: Path) -> Shelf:
    # A store that lists and reads as others do, without a server.
    return RemoteShelf(storage.connect("memory://shelf/", "testing"), f"{folder.name}/job")


@pytest.fixture(params=[local, remote])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Open the same shelf, again and again."""
    return lambda: request.param(tmp_path)


def test_lines_come_back_in_order(make: Make) -> None:
    shelf = make()
    for entry in ENTRIES:
        shelf.append(entry)
    shelf.close()
    again = make()
    assert list(again.read()) == ENTRIES
    assert list(islice(again.read(), 2)) == ENTRIES[:2]
    again.append({"kind": "whole"})
    assert again.entries()[-2:] == [ENTRIES[-1], {"kind": "whole"}]
    again.close()


def test_lines_behind_a_cut_are_gone(make: Make) -> None:
    shelf = make()
    for entry in ENTRIES[:5]:
        shelf.append(entry)
    shelf.truncate(3)
    assert shelf.entries() == ENTRIES[:3]
    shelf.append(ENTRIES[9])
    assert shelf.entries() == [*ENTRIES[:3], ENTRIES[9]]
    shelf.truncate(0)
    assert shelf.entries() == []
    shelf.close()


def test_parts_are_held_in_their_size(make: Make) -> None:
    shelf = make()
    first = shelf.put("a", b"12345")
    assert shelf.holds(first)
    second = shelf.put("b", b"1")  # after the shelf was looked at
    assert shelf.holds(second)
    other = shelf.put("a", b"123")
    assert (shelf.holds(first), shelf.holds(other)) == (False, True)
    shelf.remove("b")
    assert not shelf.holds(second)
    shelf.close()


def test_half_a_line_ends_the_ledger(tmp_path: Path) -> None:
    shelf = local(tmp_path)
    for entry in ENTRIES[:3]:
        shelf.append(entry)
    shelf.close()
    file = tmp_path / "job" / "ledger.jsonl"
    whole = file.read_bytes()
    for end in (len(whole) - 1, len(whole) - 20):
        file.write_bytes(whole[:end])
        shelf = local(tmp_path)
        assert shelf.entries() == ENTRIES[:2]
        shelf.truncate(2)
        shelf.append(ENTRIES[3])
        assert shelf.entries() == [*ENTRIES[:2], ENTRIES[3]]
        shelf.close()


def test_a_ledger_begins_with_a_whole_line(tmp_path: Path) -> None:
    shelf = local(tmp_path)
    assert not has_ledger(tmp_path / "job")
    (tmp_path / "job" / "ledger.jsonl").write_bytes(b'{"kind":')
    assert not has_ledger(tmp_path / "job")
    (tmp_path / "job" / "ledger.jsonl").write_bytes(b'{"kind":1}\n{')
    assert has_ledger(tmp_path / "job")
    shelf.close()
