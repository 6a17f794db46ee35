"""What a job was told, and which of its parts are done: read, compared, continued.

The first line of a ledger says what the output is a function of; a job goes on only where all of
that is the same. Every other line is a part that is on the shelf. Knows no format of data.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from poolc.errors import InputError
from poolc.runtime.bulk.records import START, Position
from poolc.runtime.bulk.shelf import Shelf, Stored

FORMAT = 1
FILES = ("file", "errors", "distinct")
# What may differ where the caller says so, and what is compared by content if it differs.
HOST, INPUTS = "host", "inputs"
# What an appending job found when it began: what is there now may be its own output already.
BASE = "base"


@dataclass(frozen=True, slots=True)
class Done:
    """One committed part. ``file`` is None where none of its rows could be processed."""

    number: int
    num_rows: int
    num_written: int
    num_truncated: int
    num_tokens: int
    num_computed: int  # tokens with padding
    num_bytes: int
    end: Position
    digest: str
    file: Stored | None
    errors: Stored | None
    distinct: Stored | None
    shape: tuple[int | None, ...] | None
    dtype: str | None

    @property
    def files(self) -> tuple[Stored | None, ...]:
        """What is on the shelf of it: rows, errors, and texts for later parts to borrow."""
        return tuple(getattr(self, name) for name in FILES)

    def entry(self) -> dict[str, Any]:
        """Return the line of the ledger."""
        return {"kind": "part", **asdict(self), "end": list(self.end)}

    @classmethod
    def from_entry(cls, entry: Mapping[str, Any]) -> Done:
        """Read a line of the ledger."""
        plain = {name: value for name, value in entry.items() if name != "kind"}
        for name in FILES:
            plain[name] = None if plain[name] is None else Stored(**plain[name])
        plain["end"] = Position(*plain["end"])
        # Nearly all parts have the same: a million of them hold it once.
        plain["shape"] = None if plain["shape"] is None else _once(tuple(plain["shape"]))
        plain["dtype"] = None if plain["dtype"] is None else sys.intern(plain["dtype"])
        return cls(**plain)


@dataclass(frozen=True, slots=True)
class Begun:
    """Where a job stands. ``whole`` is its assembled output, once there is one."""

    parts: tuple[Done, ...] = ()
    whole: Stored | None = None
    trusts_inputs: bool = True  # the same files by size and time: their rows need not be compared
    base: Mapping[str, Any] | None = None  # of the output that is appended to

    @property
    def num_rows(self) -> int:
        """Rows of all committed parts."""
        return sum(part.num_rows for part in self.parts)

    @property
    def end(self) -> Position:
        """How far the inputs were read."""
        return self.parts[-1].end if self.parts else START


@cache
def _once(shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
    return shape


def begin(shelf: Shelf, header: Mapping[str, Any], *, any_host: bool, restart: bool) -> Begun:
    """Return where the job of ``header`` stands, after writing its first line if it is new.

    Raises InputError where the shelf holds another job's parts.
    """
    entries = shelf.read()
    first = next(entries, None)
    if restart or first is None:
        shelf.truncate(0)
        shelf.append({"kind": "job", "format": FORMAT, **header})
        return Begun(base=header.get(BASE))
    trusts = _compare(first, header, any_host=any_host)
    parts: list[Done] = []
    whole: Stored | None = None
    for entry in entries:
        if entry.get("kind") == "whole":
            whole = Stored(**entry["file"])
            break
        part = Done.from_entry(entry)
        if any(file and not shelf.holds(file) for file in part.files):
            break  # it and what follows is computed again
        parts.append(part)
    kept = 1 + len(parts) + (whole is not None)
    shelf.truncate(kept)
    return Begun(tuple(parts), whole, trusts, first.get(BASE))


def commit(shelf: Shelf, done: Done) -> None:
    """Make a part count, whose files are on the shelf."""
    shelf.append(done.entry())


def _compare(old: Mapping[str, Any], new: Mapping[str, Any], *, any_host: bool) -> bool:
    """Check that a ledger is of this job; return whether its inputs are surely the same."""
    if old.get("kind") != "job" or old.get("format") != FORMAT:
        raise InputError(
            "an unfinished job of another version of poolc is there: begin anew (--restart)",
            param="output",
        )
    for name in new:
        if name in (HOST, INPUTS, BASE) or old.get(name) == new[name]:
            continue
        raise InputError(
            f"an unfinished job is there with another {name}: {old.get(name)!r}, now "
            f"{new[name]!r}; finish it with what it was begun with, or begin anew (--restart)",
            param="output",
        )
    if old.get(HOST) != new[HOST] and not any_host:
        raise InputError(
            f"an unfinished job is there that was begun on {_told(old.get(HOST))}; here it is "
            f"{_told(new[HOST])}, which may round differently: go on there, allow it "
            "(--allow-different-host), or begin anew (--restart)",
            param="output",
        )
    return _same_inputs(old.get(INPUTS, []), new[INPUTS])


def _same_inputs(old: Sequence[Any], new: Sequence[Any]) -> bool:
    """Refuse other files; return whether times are the same too. Standard input has none."""
    for before, now in zip(old, new, strict=False):
        if before[:2] != now[:2]:
            raise _changed(f"{before[0]} of {before[1]} bytes, now {now[0]} of {now[1]} bytes")
    if len(old) != len(new):
        raise _changed(f"{len(old)} files, now {len(new)}")
    return list(old) == list(new) and all(time is not None for *_, time in new)


def _changed(how: str) -> InputError:
    return InputError(
        f"an unfinished job is there with other inputs: {how}; restore them, or begin anew "
        "(--restart)",
        param="inputs",
    )


def rows_changed(part: Done) -> InputError:
    """Return the error for inputs whose rows are not those of a committed part."""
    first = f"part {part.number}"
    return _changed(f"the rows of {first} are not what they were")


def _told(host: Any) -> str:
    if not isinstance(host, Mapping):
        return "another machine"
    return ", ".join(f"{name} {value}" for name, value in host.items())
