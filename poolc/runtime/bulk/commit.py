"""One output under way: parts are committed to a shelf one by one, then the output is finished.

Every step can be the last one of a process: what a ledger says is done is on the disk, and doing
the rest again gives the same bytes. Knows nothing about how parts are computed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from poolc.errors import InputError, InvalidText
from poolc.runtime.bulk import ledger
from poolc.runtime.bulk.answers import array_columns, array_of
from poolc.runtime.bulk.compute import Answered
from poolc.runtime.bulk.dedupe import Earlier, by_part, read_digests, read_rows
from poolc.runtime.bulk.describe import (
    appended,
    check_append,
    check_same_rows,
    describe,
    job_key,
    rows_digest,
)
from poolc.runtime.bulk.destination import WHOLE, Destination
from poolc.runtime.bulk.formats import TABLES, Format
from poolc.runtime.bulk.job import BulkJob
from poolc.runtime.bulk.ledger import Done
from poolc.runtime.bulk.shelf import Stored
from poolc.runtime.bulk.storing import Storing
from poolc.runtime.bulk.subject import Subject
from poolc.runtime.bulk.table_outputs import meta_in, schema_of

Files = Sequence[tuple[str, Any]]  # names and bytes
_PART = re.compile(r"part-(\d{5,})\.(?:jsonl|parquet|arrow)$")
_OWN_KINDS = ("errors", "distinct")


class Commit:
    """The output of one job, from its first part to its name. Opens the shelf.

    Raises InputError where an unfinished job or an output that is there does not allow it.
    """

    def __init__(
        self, subject: Subject, job: BulkJob, place: Destination, told: dict[str, Any]
    ) -> None:
        self._subject, self._job, self._place = subject, job, place
        self._key = job_key(told)
        self.strict = job.settings.strict
        self._shelf = place.shelf()
        try:
            settings = job.settings
            if settings.restart:
                self._discard()
            if settings.restart or next(self._shelf.read(), None) is None:
                told |= {ledger.BASE: self._base()}
            self.begun = ledger.begin(
                self._shelf,
                told,
                any_host=settings.allow_different_host,
                restart=settings.restart,
            )
            self._done = list(self.begun.parts)
            base = self.begun.base or {}
            first_index, num_before = int(base.get("rows", 0)), int(base.get("parts", 0))
            self.storing = Storing(subject, job, place.of_parts, first_index, num_before)
            known = self._schema() if self.storing.needs_schema else None
            self._output = self.storing.output(known)
        except BaseException:
            self._leave()
            raise

    def add(self, answered: Answered) -> Done:
        """Store a part and enter it into the ledger; on return it survives anything."""
        done = self.storing.store(self._output, self._completed(answered), self._shelf.put)
        return self._enter(done)

    def enter(self, done: Done, files: Files = ()) -> Done:
        """Enter a part that was stored elsewhere; ``files`` are those that could not be put."""
        for name, data in files:
            self._shelf.put(name, data)
        return self._enter(done)

    @property
    def schema(self) -> Any:
        """The schema of tables, once it is known; None of other formats."""
        return self._output.schema

    @schema.setter
    def schema(self, schema: Any) -> None:
        self._output = self.storing.output(schema)

    def admit(self) -> str:
        """Let other processes put parts (``Destination.open_parts``); return what they show."""
        return self._shelf.admit()

    def finish(self) -> Mapping[str, Any]:
        """Put the output in place and forget the job; return what the output says of itself.

        Raises InvalidText where no row could be processed, InputError where the disk refuses.
        """
        meta = self._meta()
        errors = b"".join(self._read(d.errors) for d in self._done if d.errors is not None) or None
        self._place.put_errors(errors)
        if not any(done.file for done in self._done):
            self._forget()
            raise InvalidText(
                f"none of the {sum(d.num_rows for d in self._done)} rows could be processed: "
                f"{_first_message(errors)}"
            )
        whole = None if self._place.of_parts else self._assembled(meta)
        self._place.finish(self._shelf, whole, None if self._describes_itself else meta)
        self._forget()
        return meta

    def close(self) -> None:
        """Leave the job as it is; one without any part leaves nothing."""
        self._leave()

    def earlier(self) -> Earlier | None:
        """Return the texts of the parts that are committed, where later ones may borrow of them."""
        if not self._job.lends:
            return None
        known = Earlier()
        for done in self._done:
            if done.distinct is not None:
                with self._shelf.open(done.distinct.name) as file:
                    known.add(done.number, read_digests(file))
        return known

    def _enter(self, done: Done) -> Done:
        ledger.commit(self._shelf, done)
        self._done.append(done)
        return done

    def _completed(self, answered: Answered) -> Answered:
        """Return answers with those that rows borrow of earlier parts, in order of rows."""
        if not answered.borrowed:
            return answered
        rows, values, cut = list(answered.rows), list[Any](), list[Any]()
        if rows:
            values.append(array_of(answered.columns))
            cut.append(answered.truncated)
        for number, borrowers in by_part(answered.borrowed).items():
            lent = self._done[number].distinct
            if lent is None:
                raise AssertionError("a part without texts lends none; this is a bug in poolc")
            with self._shelf.open(lent.name) as file:
                found = read_rows(file, [answered.borrowed[row].place for row in borrowers])
            rows += borrowers
            values.append(found[0])
            cut.append(found[1])
        order = np.argsort(rows, kind="stable").tolist()
        job, spec = self._job, self._subject.spec
        return replace(
            answered,
            rows=[rows[i] for i in order],
            columns=array_columns(spec, job.task, job.params, np.concatenate(values)[order]),
            truncated=np.concatenate(cut)[order],
            borrowed={},
        )

    @property
    def _describes_itself(self) -> bool:
        return self._output.has_meta and not self._place.of_parts

    def _leave(self) -> None:
        if len(list(islice(self._shelf.read(), 2))) <= 1:
            self._shelf.clear()
        self._shelf.close()

    def _forget(self) -> None:
        for done in self._done:
            for own in (done.errors, done.distinct) if self._place.of_parts else ():
                if own is not None:
                    self._shelf.remove(own.name)
        self._shelf.clear()

    def _discard(self) -> None:
        """Remove the parts of an unfinished job, and those that it stored without entering them."""
        before: int | None = None
        names: list[str] = []
        for entry in self._shelf.read():
            if before is None:
                before = int((entry.get(ledger.BASE) or {}).get("parts", 0))
            names += [entry[kind]["name"] for kind in ledger.FILES if entry.get(kind)]
        if before is not None and self._place.of_parts:
            names += _parts_from(self._place.identity() or [], before)
        for name in names:
            self._shelf.remove(name)
        self._shelf.truncate(0)

    def _base(self) -> dict[str, Any] | None:
        """Look at the output that is there: what rows are appended to, or must not be lost."""
        identity = self._place.identity()
        if identity is None:
            return None
        if not self._job.settings.append:
            if self._place.of_parts:
                self._refuse_full_folder()
            return None
        there = meta_there(self._place, self._job)
        old = check_append(there, self._subject.artifact, self._job, self._place.name)
        rows = int(old.get("rows", 0)) + int(old.get("rows_failed", 0))
        parts = len(identity) if self._place.of_parts else 0
        return {"identity": identity, "meta": dict(old), "rows": rows, "parts": parts}

    def _refuse_full_folder(self) -> None:
        raise InputError(
            f"the folder {self._place.name} holds an output already: append to it (--append), or "
            "name another folder",
            param="output",
        )

    def _schema(self) -> Any:
        """Return the schema of what was written before, None where nothing was."""
        files = [done.file for done in self._done if done.file is not None]
        kind = self._job.format
        if files:
            stored_as = kind if self._place.of_parts else Format.ARROW
            with self._shelf.open(files[0].name) as file:
                return schema_of(stored_as, file)
        if self.begun.base is not None:
            with self._place.open_base() as file:
                return schema_of(kind, file)
        return None

    def _meta(self) -> dict[str, Any]:
        first = next((done for done in self._done if done.shape is not None), None)
        shape, dtype = ((), "") if first is None else (first.shape or (), first.dtype or "")
        meta = describe(self._subject, self._job, shape, dtype)
        meta["rows"] = sum(done.num_written for done in self._done)
        meta["rows_failed"] = sum(done.num_rows - done.num_written for done in self._done)
        if self._job.params.truncate:
            meta["rows_truncated"] = sum(done.num_truncated for done in self._done)
        if self._place.of_parts or self._job.settings.append:
            digest = rows_digest(done.digest for done in self._done)
            meta["jobs"] = [{"key": self._key, "rows": digest}]
        if self.begun.base is not None:
            check_same_rows(self.begun.base["meta"], meta, self._place.name)
            meta = appended(self.begun.base["meta"], meta)
        if self._place.of_parts:
            meta["parts"] = self.storing.num_before + len(self._done)
        return meta

    def _assembled(self, meta: Mapping[str, Any]) -> Stored:
        """Return the whole output as a draft; one that a killed process made is taken."""
        whole = self.begun.whole
        if whole is not None and self._place.holds(whole):
            return whole
        base = self.begun.base
        if base is not None and self._place.identity() != base["identity"]:
            raise InputError(
                f"{self._place.name} was changed since this job began to append to it: begin anew "
                "(--restart)",
                param="output",
            )
        self._shelf.truncate(1 + len(self._done))
        with ExitStack() as stack:
            old = None if base is None else stack.enter_context(self._place.open_base())
            whole = self._place.draft(
                self._shelf,
                lambda file: self._output.assemble(self._contents(), old, file, meta),
            )
        self._shelf.append({"kind": WHOLE, "file": _plain(whole)})
        return whole

    def _contents(self) -> Iterator[tuple[Done, Any]]:
        for done in self._done:
            if done.file is None:
                yield done, None
            else:
                with self._shelf.open(done.file.name) as file:
                    yield done, file

    def _read(self, part: Stored) -> bytes:
        with self._shelf.open(part.name) as file:
            return bytes(file.read())


def meta_there(place: Destination, job: BulkJob) -> dict[str, Any] | None:
    """Return what the output that is there says of itself."""
    if place.of_parts or job.format not in TABLES:
        return place.meta()
    with place.open_base() as file:
        return meta_in(job.format, file)


def finished_already(
    place: Destination, job: BulkJob, told: Mapping[str, Any], digests: Iterator[str]
) -> dict[str, Any] | None:
    """Return what the output says of itself, where this very job is in it already, else None.

    So that a job that was killed after its last step is not done twice. ``digests`` are those of
    the job's parts, read only where names and sizes of the inputs are those of a job that is there.
    """
    settings = job.settings
    again = place.of_parts or settings.append
    if not again or settings.restart or place.identity() is None or place.unfinished():
        return None
    meta = meta_there(place, job)
    key = job_key(told)
    same = [one for one in (meta or {}).get("jobs", []) if one.get("key") == key]
    known = all(size is not None for _, size, _ in told[ledger.INPUTS])  # not standard input
    if meta is None or not same or not known:
        return None
    digest = rows_digest(digests)
    return meta if any(one["rows"] == digest for one in same) else None


def _first_message(errors: bytes | None) -> str:
    import orjson

    if not errors:
        return "there are none"
    return str(orjson.loads(errors.split(b"\n", 1)[0])["message"])


def _parts_from(names: Sequence[str], first: int) -> list[str]:
    """Return those of a folder's names that are parts, from a number on, and what they may own."""
    found = [(name, int(match.group(1))) for name in names if (match := _PART.match(name))]
    parts = [(name, number) for name, number in found if number >= first]
    last = max((number for _, number in parts), default=first - 1)
    own = [f"_part-{n:05d}.{kind}" for n in range(first, last + 1) for kind in _OWN_KINDS]
    return [name for name, _ in parts] + own


def _plain(part: Stored) -> dict[str, Any]:
    return {"name": part.name, "num_bytes": part.num_bytes, "digest": part.digest}
