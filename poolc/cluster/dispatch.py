"""The parts of one job under way: who computes which, and in which order they count.

Parts are computed and stored in any order and committed in theirs. A part whose worker was lost is
computed again by another one: the same part, and so the same bytes. Knows nothing about what is in
a part.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from poolc.cluster.crew import PER_WORKER, Crew, Member
from poolc.cluster.library import import_ray
from poolc.cluster.worker import Computed, Delivered, Order
from poolc.errors import BackendError, InputError, PoolcError
from poolc.runtime.bulk.compute import Answered
from poolc.runtime.bulk.dedupe import Earlier, Found
from poolc.runtime.bulk.overlap import Ahead
from poolc.runtime.bulk.parts import Part, portable
from poolc.runtime.bulk.progress import Meter
from poolc.runtime.bulk.run import Sink

# Parts that were begun and do not count yet, a worker: a slow one holds up no other for long.
_AHEAD = 4 * PER_WORKER
_MOST_LOST = 3  # workers that end by the same part before the job does
_LOOK_S = 0.05  # for parts that were read meanwhile
_WAIT_S = 1.0


@dataclass(slots=True, eq=False)
class _Piece:
    """A part on its way. ``sent`` is the part as workers get it; ``part`` it is until looked up."""

    number: int
    num_rows: int
    num_bytes: int
    sent: Any
    part: Part | None
    found: Mapping[int, Found] | None = None
    holder: Member | None = None
    computed: Computed | None = None
    is_asked: bool = False  # for its answers
    num_lost: int = 0


@dataclass(slots=True)
class _State:
    """Where a dispatch is. ``stop`` is the first part that will not count, and ``failure`` why."""

    next: int | None = None  # the part that counts next; None until one is read
    stop: int | None = None
    failure: BaseException | None = None
    pieces: dict[int, _Piece] = field(default_factory=dict)  # read, and not committed
    waiting: list[int] = field(default_factory=list)  # a heap: of those, the ones without a worker
    delivered: dict[int, Delivered | Answered] = field(default_factory=dict)
    preparing: int | None = None  # whose texts later parts wait to know, of jobs that borrow


class Dispatch:
    """Computes the parts of a job by a crew, and hands them to a sink in order."""

    def __init__(self, crew: Crew, sink: Sink, meter: Meter) -> None:
        self._ray = import_ray()
        self._crew, self._calls, self._sink, self._meter = crew, crew.calls, sink, meter
        self._state = _State()
        output = sink.storing.job.output
        ends = os.sep if output.endswith(("/", os.sep)) else ""
        if "://" not in output:
            output = os.path.abspath(output) + ends
        self._order = self._ray.put(Order(sink.storing, output, sink.admit()))
        self._earlier: Earlier | None = None
        crew.on_lost = self._lost

    def run(self, parts: Iterator[Part]) -> None:
        """Compute parts until there are no more. What is before one that fails is committed.

        Raises what reading and computing raise, and BackendError for a part that ends its workers.
        """
        self._earlier = self._sink.earlier()
        ahead = Ahead(parts)
        try:
            with ahead:
                while not self._is_done(ahead):
                    self._read(ahead)
                    self._hand_out()
                    state = self._state
                    self._crew.fit(waiting=len(state.waiting), ended=self._has_all(ahead))
                    reading = not self._has_all(ahead) and self._has_room()
                    self._calls.wait(_LOOK_S if reading else _WAIT_S)
                    if reading and not len(self._calls):
                        ahead.wait(_LOOK_S)
                    self._commit()
        finally:
            if self._earlier is not None:
                self._earlier.close()
        if self._state.failure is not None:
            raise self._state.failure

    def _has_all(self, ahead: Ahead[Part]) -> bool:
        return ahead.ended or self._state.stop is not None

    def _is_done(self, ahead: Ahead[Part]) -> bool:
        return self._has_all(ahead) and not self._state.pieces

    def _has_room(self) -> bool:
        state, ready = self._state, self._crew.num_ready()
        return len(state.waiting) < 1 + ready and len(state.pieces) < _AHEAD * max(ready, 1)

    def _read(self, ahead: Ahead[Part]) -> None:
        while not self._has_all(ahead) and self._has_room():
            try:
                made = ahead.made()
            except InputError as error:
                self._fail(self._end(), error)
                return
            if not made:
                return
            self._take(made[0])

    def _end(self) -> int:
        """Return the number behind the last part that was read."""
        return max(self._state.pieces, default=(self._state.next or 0) - 1) + 1

    def _take(self, part: Part) -> None:
        state = self._state
        if state.next is None:
            state.next = part.number
        sent = self._ray.put(portable(part))
        kept = part if self._earlier is not None else None
        piece = _Piece(part.number, len(part.records), part.num_bytes, sent, kept)
        state.pieces[part.number] = piece
        heapq.heappush(state.waiting, part.number)

    def _hand_out(self) -> None:
        state = self._state
        while state.waiting:
            piece = state.pieces[state.waiting[0]]
            member = self._crew.free(urgent=piece.number == state.next)
            if member is None or not self._is_known(piece):
                return
            heapq.heappop(state.waiting)
            piece.holder = member
            member.parts.add(piece.number)
            if piece.part is None:
                self._compute(piece)
            else:
                self._look_up(piece, piece.part)

    def _is_known(self, piece: _Piece) -> bool:
        """Return whether the texts of all parts before a piece are known, where that matters."""
        return piece.part is None or self._state.preparing is None

    def _look_up(self, piece: _Piece, part: Part) -> None:
        """Have a part tokenised for its distinct texts, before later parts are looked up."""
        assert self._earlier is not None and piece.holder is not None
        items = {record.item for record in part.records}
        before = self._earlier.find(items)
        records = enumerate(part.records)
        piece.found = {row: before[r.item] for row, r in records if r.item in before}
        self._state.preparing = piece.number
        reference = piece.holder.actor.prepare.remote(piece.sent, piece.found)
        self._calls.ask(piece.holder, reference, partial(self._prepared, piece))

    def _prepared(self, piece: _Piece, said: list[bytes] | PoolcError) -> None:
        self._state.preparing = None
        if isinstance(said, PoolcError):
            self._fail(piece.number, said)
            return
        assert self._earlier is not None
        self._earlier.add(piece.number, said)
        piece.part = None
        if self._counts(piece):
            self._compute(piece)

    def _compute(self, piece: _Piece) -> None:
        assert piece.holder is not None
        actor = piece.holder.actor
        reference = actor.compute.remote(piece.sent, piece.found, strict=self._sink.strict)
        self._calls.ask(piece.holder, reference, partial(self._computed, piece))

    def _computed(self, piece: _Piece, said: Computed | PoolcError) -> None:
        if not self._counts(piece):
            self._release(piece)
        elif isinstance(said, PoolcError):
            self._fail(piece.number, said)
        elif said.failure is not None:
            self._fail(piece.number, said.failure)
        else:
            piece.computed = said
            self._ask_for_answers()

    def _ask_for_answers(self) -> None:
        """Have parts stored that can be: of tables, once the first one has said what columns are.

        What borrows is handed over, when all before it counts: only here it can be completed.
        """
        known = self._sink.schema is not None or not self._sink.storing.needs_schema
        for piece in self._state.pieces.values():
            is_next = piece.number == self._state.next
            if piece.computed is None or piece.is_asked or piece.holder is None:
                continue
            if not is_next and (piece.computed.borrows or not known):
                continue
            piece.is_asked = True
            actor = piece.holder.actor
            if piece.computed.borrows:
                reference = actor.hand_over.remote(piece.number)
            else:
                reference = actor.store.remote(piece.number, self._order, self._sink.schema)
            self._calls.ask(piece.holder, reference, partial(self._answered, piece))

    def _answered(self, piece: _Piece, said: Delivered | Answered | PoolcError) -> None:
        self._release(piece)
        if not self._counts(piece):
            return
        if isinstance(said, PoolcError):
            self._fail(piece.number, said)
            return
        piece.sent = None
        self._state.delivered[piece.number] = said

    def _commit(self) -> None:
        """Hand over what is next, and have stored what can be by then."""
        state = self._state
        while state.next is not None and state.next in state.delivered:
            said = state.delivered.pop(state.next)
            piece = state.pieces.pop(state.next)
            if isinstance(said, Answered):
                self._sink.add(said)
                tokens, computed = said.num_tokens, said.num_computed
            else:
                self._sink.enter(said.done, said.files)
                tokens, computed = said.done.num_tokens, said.done.num_computed
                if self._sink.schema is None and said.schema is not None:
                    self._sink.schema = said.schema
            self._meter.start_part(piece.num_rows, piece.num_bytes, tokens)
            self._meter.add(tokens, computed)
            self._meter.end_part(0 if piece.computed is None else piece.computed.num_failed)
            state.next += 1
            self._ask_for_answers()

    def _fail(self, number: int, error: BaseException) -> None:
        """Let nothing count from a part on; what is before it still does."""
        state = self._state
        if state.stop is not None and state.stop <= number:
            return
        state.stop, state.failure = number, error
        for later in [n for n in state.pieces if n >= number]:
            piece = state.pieces.pop(later)
            state.delivered.pop(later, None)
            self._release(piece)
        state.waiting = [n for n in state.waiting if n < number]
        heapq.heapify(state.waiting)

    def _counts(self, piece: _Piece) -> bool:
        return self._state.pieces.get(piece.number) is piece

    def _release(self, piece: _Piece) -> None:
        if piece.holder is not None:
            self._crew.release(piece.holder, piece.number)
            piece.holder = None

    def _lost(self, member: Member, error: Exception) -> None:
        """Let others have the parts of a worker that ended."""
        state = self._state
        for piece in [p for p in state.pieces.values() if p.holder is member]:
            piece.holder, piece.computed, piece.is_asked = None, None, False
            if state.preparing == piece.number:
                state.preparing = None
            piece.num_lost += 1
            if piece.num_lost >= _MOST_LOST:
                self._fail(piece.number, _fatal(piece, error))
            else:
                heapq.heappush(state.waiting, piece.number)


def _fatal(piece: _Piece, error: Exception) -> BackendError:
    return BackendError(
        f"{piece.num_lost} workers ended while they computed part {piece.number} ({piece.num_rows} "
        f"rows): with little memory, make parts smaller (part_rows, memory_limit); the last one: "
        f"{' '.join(str(error).split())}"
    )
