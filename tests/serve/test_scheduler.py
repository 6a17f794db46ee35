"""The queue: everyone gets their own rows; failures, floods and stops stay where they belong."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poolc.errors import (
    ArtifactIncompatible,
    BackendError,
    DeviceOutOfMemory,
    InvalidText,
    Overloaded,
)
from poolc.runtime.outputs import Ragged
from poolc.runtime.request import Item, Params, Prepared
from poolc.serve.errors import Draining
from poolc.serve.scheduler import Answer, Scheduler
from poolc.serve.settings import Settings
from poolc.spec import Task
from tests.serve.conftest import MakeFake
from tests.serve.fakes import FakeEngine, vector_of

NO_LIMIT = 1 << 30


def scheduler_of(fake: FakeEngine, max_queued_tokens: int = NO_LIMIT) -> Scheduler:
    return Scheduler(fake.engine, Settings(max_queued_tokens=max_queued_tokens))


async def embed(scheduler: Scheduler, *texts: str) -> Answer:
    return await scheduler.ask(Task.EMBED, texts, Params())


async def started(fake: FakeEngine, count: int) -> None:
    await asyncio.to_thread(fake.wait_until_started, count)


async def queued(scheduler: Scheduler, tokens: int) -> None:
    """Let the loop run until so many tokens are queued."""
    async with asyncio.timeout(20):
        while scheduler.admission.queued_tokens != tokens:
            await asyncio.sleep(0)


def is_answer_to(answer: Answer, texts: Sequence[str]) -> bool:
    wanted = np.stack([vector_of(text) for text in texts])
    return bool(np.array_equal(np.asarray(answer.result), wanted))


def test_ask_answers_everyone_with_their_own_rows(make_fake: MakeFake) -> None:
    async def main() -> None:
        scheduler = scheduler_of(make_fake())
        asked = [[f"{n}-{i}" * (1 + (n * i) % 7) for i in range(1 + n % 9)] for n in range(60)]
        answers = await asyncio.gather(*(embed(scheduler, *texts) for texts in asked))
        assert all(map(is_answer_to, answers, asked))
        assert [a.num_tokens for a in answers] == [sum(map(len, texts)) for texts in asked]

    asyncio.run(main())


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    asked=st.lists(
        st.lists(st.text("abc", min_size=1, max_size=90), min_size=1, max_size=5),
        min_size=1,
        max_size=8,
    ),
    streams=st.integers(1, 3),
)
def test_ask_any_requests(make_fake: MakeFake, asked: list[list[str]], streams: int) -> None:
    async def main() -> None:
        scheduler = scheduler_of(make_fake(streams=streams))
        answers = await asyncio.gather(*(embed(scheduler, *texts) for texts in asked))
        assert all(map(is_answer_to, answers, asked))
        assert scheduler.admission.queued_tokens == 0

    asyncio.run(main())


def test_ask_does_not_wait_for_company(make_fake: MakeFake) -> None:
    async def main() -> None:
        fake = make_fake()
        fake.hold()
        first = asyncio.ensure_future(embed(scheduler_of(fake), "alone"))
        await started(fake, 1)
        fake.release()
        assert is_answer_to(await first, ["alone"])

    asyncio.run(main())


def test_ask_runs_no_more_than_the_streams(make_fake: MakeFake) -> None:
    async def main() -> None:
        fake = make_fake(streams=2, budget=8)
        scheduler = scheduler_of(fake)
        await asyncio.gather(*(embed(scheduler, f"text {n}", "other") for n in range(40)))
        assert fake.peak <= 2

    asyncio.run(main())


def test_ask_shares_micro_batches_while_streams_are_busy(make_fake: MakeFake) -> None:
    async def main() -> None:
        fake = make_fake(streams=1)
        scheduler = scheduler_of(fake)
        fake.hold()
        asked = [asyncio.ensure_future(embed(scheduler, "first"))]
        await started(fake, 1)
        asked += [asyncio.ensure_future(embed(scheduler, text)) for text in ("one", "two", "six")]
        await queued(scheduler, 14)
        fake.release()
        await asyncio.gather(*asked)
        assert [sorted(texts) for texts in fake.started] == [["first"], ["one", "six", "two"]]

    asyncio.run(main())


def test_ask_gives_all_cores_to_a_lone_request_only(make_fake: MakeFake) -> None:
    async def main() -> None:
        fake = make_fake(streams=2, budget=8)
        scheduler = scheduler_of(fake)
        await embed(scheduler, "alone")
        assert fake.alone == [True]
        await embed(scheduler, "several", "micro-batches", "are not")
        assert not any(fake.alone[1:])
        fake.hold()
        asked = [asyncio.ensure_future(embed(scheduler, "first"))]
        await started(fake, len(fake.started) + 1)
        asked.append(asyncio.ensure_future(embed(scheduler, "beside")))
        await started(fake, len(fake.started) + 1)
        fake.release()
        await asyncio.gather(*asked)
        assert fake.alone[-2:] == [True, False]

    asyncio.run(main())


def test_ask_lower_priorities_come_first(make_fake: MakeFake) -> None:
    async def main() -> None:
        fake = make_fake(streams=1, budget=4)
        scheduler = scheduler_of(fake)
        fake.hold()
        asked = [asyncio.ensure_future(embed(scheduler, "busy"))]
        await started(fake, 1)
        for text, priority in (("late", 5), ("then", 0), ("soon", -1), ("next", 0)):
            request = scheduler.ask(Task.EMBED, [text], Params(), priority=priority)
            asked.append(asyncio.ensure_future(request))
            await queued(scheduler, 4 * len(asked))
        fake.release()
        await asyncio.gather(*asked)
        assert fake.started == [["busy"], ["soon"], ["then"], ["next"], ["late"]]

    asyncio.run(main())


@pytest.mark.parametrize("probed", [False, True])
def test_model_that_keeps_failing_is_opened_anew_once(make_fake: MakeFake, probed: bool) -> None:
    """Probes count: a server that is not ready is sent nothing else."""

    async def main() -> None:
        fake = make_fake()
        fake.failure = BackendError("broken")
        fake.poison = "ready" if probed else "poison"
        scheduler = scheduler_of(fake)
        for expected in (0, 0, 1, 1, 1, 1, 1):
            with pytest.raises(BackendError):
                await (scheduler.probe() if probed else embed(scheduler, "poison"))
            if scheduler._restarting is not None:
                await scheduler._restarting
            assert fake.restarts == expected
        assert is_answer_to(await embed(scheduler, "fine"), ["fine"])

    asyncio.run(main())


def test_model_that_answers_again_is_opened_anew_another_time(make_fake: MakeFake) -> None:
    async def main() -> None:
        fake = make_fake()
        fake.failure = BackendError("broken")
        scheduler = scheduler_of(fake)
        for expected in (1, 2):
            for _ in range(4):
                with pytest.raises(BackendError):
                    await embed(scheduler, "poison")
            if scheduler._restarting is not None:
                await scheduler._restarting
            assert fake.restarts == expected
            assert is_answer_to(await embed(scheduler, "fine"), ["fine"])

    asyncio.run(main())


def test_texts_that_do_not_fit_into_a_device_open_nothing_anew(make_fake: MakeFake) -> None:
    async def main() -> None:
        fake = make_fake()
        fake.failure = DeviceOutOfMemory("one text does not fit")
        scheduler = scheduler_of(fake)
        for _ in range(5):
            with pytest.raises(DeviceOutOfMemory):
                await embed(scheduler, "poison")
        assert fake.restarts == 0

    asyncio.run(main())


@pytest.mark.parametrize(
    ("devices", "expected"), [(("cpu",), []), (("cuda:1",), ["cuda:1 is lost"])]
)
def test_a_device_that_cannot_be_opened_anew_is_lost(
    make_fake: MakeFake, devices: tuple[str, ...], expected: list[str]
) -> None:
    """To the process: CUDA does nothing for it any more."""

    async def main() -> None:
        fake = make_fake()
        fake.devices = devices
        fake.failure = BackendError("CUDA failure 719: unspecified launch failure")
        fake.cannot_restart = ArtifactIncompatible("CUDA failure 719")
        scheduler = scheduler_of(fake)
        told: list[str] = []
        scheduler.on_lost = told.append
        for _ in range(5):
            with pytest.raises(BackendError):
                await embed(scheduler, "poison")
        assert scheduler._restarting is not None
        await asyncio.wait([scheduler._restarting])
        await asyncio.sleep(0)  # its callbacks come next
        assert told == expected

    asyncio.run(main())


def test_a_device_that_others_stand_in_for_is_told_of_once(make_fake: MakeFake) -> None:
    async def main() -> None:
        fake = make_fake()
        scheduler = scheduler_of(fake)
        told: list[str] = []
        scheduler.on_lost = told.append
        await embed(scheduler, "fine")
        fake.lost_devices = ("cuda:1",)
        for _ in range(3):
            await embed(scheduler, "fine")
        assert told == ["cuda:1 is lost"]

    asyncio.run(main())


def test_failures_between_successes_open_nothing_anew(make_fake: MakeFake) -> None:
    async def main() -> None:
        fake = make_fake()
        fake.failure = BackendError("broken")
        scheduler = scheduler_of(fake)
        for _ in range(5):
            with pytest.raises(BackendError):
                await embed(scheduler, "poison")
            await embed(scheduler, "fine")
        assert fake.restarts == 0

    asyncio.run(main())


def test_ask_big_request_does_not_block_a_small_one(make_fake: MakeFake) -> None:
    async def main() -> None:
        fake = make_fake(streams=1)
        scheduler = scheduler_of(fake)
        fake.hold()
        big = asyncio.ensure_future(embed(scheduler, *["x" * 60] * 200))
        await started(fake, 1)
        small = asyncio.ensure_future(embed(scheduler, "small"))
        await queued(scheduler, 200 * 60 + 5)
        fake.release()
        assert is_answer_to(await small, ["small"])
        assert not big.done()
        assert is_answer_to(await big, ["x" * 60] * 200)

    asyncio.run(main())


def test_ask_endless_newcomers_do_not_starve_a_big_request(make_fake: MakeFake) -> None:
    async def main() -> None:
        scheduler = scheduler_of(make_fake(streams=1))
        big = asyncio.ensure_future(embed(scheduler, *["x" * 60] * 50))

        async def come_again() -> None:
            while not big.done():
                await embed(scheduler, "n" * 60)

        async with asyncio.timeout(60):
            await asyncio.gather(*(come_again() for _ in range(4)))
        assert is_answer_to(await big, ["x" * 60] * 50)

    asyncio.run(main())


def test_ask_keeps_output_sets_apart(make_fake: MakeFake) -> None:
    async def main() -> None:
        fake = make_fake(streams=1)
        scheduler = scheduler_of(fake)
        fake.hold()
        asked = [asyncio.ensure_future(embed(scheduler, "first"))]
        await started(fake, 1)
        encoding = asyncio.ensure_future(scheduler.ask(Task.ENCODE, ["tokens"], Params()))
        asked += [asyncio.ensure_future(embed(scheduler, "vector"))]
        await queued(scheduler, 17)
        fake.release()
        result = (await encoding).result
        assert isinstance(result, Ragged)
        assert np.array_equal(result[0], np.stack([vector_of(c) for c in "tokens"]))
        assert is_answer_to((await asyncio.gather(*asked))[1], ["vector"])
        assert ["tokens", "vector"] not in [sorted(texts) for texts in fake.started]

    asyncio.run(main())


@pytest.mark.parametrize("failure", [BackendError("no"), RuntimeError("no"), MemoryError("no")])
def test_ask_poisoned_request_fails_alone(make_fake: MakeFake, failure: Exception) -> None:
    async def main() -> None:
        fake = make_fake(streams=1)
        fake.failure = failure
        scheduler = scheduler_of(fake)
        fake.hold()
        asked = [asyncio.ensure_future(embed(scheduler, "first"))]
        await started(fake, 1)
        texts = [["good"], ["fine", "poison"], ["well"]]
        asked += [asyncio.ensure_future(embed(scheduler, *some)) for some in texts]
        await queued(scheduler, 5 + 4 + 10 + 4)
        fake.release()
        _, good, poisoned, well = await asyncio.gather(*asked, return_exceptions=True)
        assert sorted(fake.started[1]) == ["fine", "good", "poison", "well"]
        assert poisoned is failure
        assert isinstance(good, Answer) and is_answer_to(good, ["good"])
        assert isinstance(well, Answer) and is_answer_to(well, ["well"])
        assert scheduler.admission.queued_tokens == 0

    asyncio.run(main())


def test_ask_failed_request_is_not_computed_further(make_fake: MakeFake) -> None:
    async def main() -> None:
        fake = make_fake(streams=1, budget=8)
        fake.failure = BackendError("no")
        with pytest.raises(BackendError):
            await embed(scheduler_of(fake), "poison!!", "a", "b", *["rest " + c for c in "abcdef"])
        assert len(fake.started) == 1

    asyncio.run(main())


def test_ask_refuses_bad_items_before_the_queue(make_fake: MakeFake) -> None:
    async def main() -> None:
        fake = make_fake()
        with pytest.raises(InvalidText):
            await embed(scheduler_of(fake), "good", "")
        assert fake.started == []

    asyncio.run(main())


def test_ask_beyond_the_queue_is_overloaded(make_fake: MakeFake) -> None:
    async def main() -> None:
        fake = make_fake(streams=1)
        scheduler = scheduler_of(fake, max_queued_tokens=10)
        fake.hold()
        first = asyncio.ensure_future(embed(scheduler, "12345678"))
        await started(fake, 1)
        with pytest.raises(Overloaded, match="8 tokens wait, the limit is 10") as caught:
            await embed(scheduler, "123")
        assert 1 <= caught.value.retry_after_s <= 60
        second = asyncio.ensure_future(embed(scheduler, "12"))
        await queued(scheduler, 10)
        prepared = fake.prepared
        with pytest.raises(Overloaded):
            await embed(scheduler, "1")
        assert fake.prepared == prepared, "a full queue refuses before it tokenises"
        fake.release()
        await asyncio.gather(first, second)
        assert is_answer_to(await embed(scheduler, "123"), ["123"])

    asyncio.run(main())


def test_ask_larger_than_the_queue_is_served_when_it_is_empty(make_fake: MakeFake) -> None:
    async def main() -> None:
        scheduler = scheduler_of(make_fake(), max_queued_tokens=10)
        texts = ["more than ten characters", "and more"]
        assert is_answer_to(await embed(scheduler, *texts), texts)

    asyncio.run(main())


def test_ask_is_admitted_before_it_is_tokenised(make_fake: MakeFake) -> None:
    async def main() -> None:
        fake = make_fake(streams=1)
        scheduler = scheduler_of(fake, max_queued_tokens=100)
        may_go_on = threading.Event()
        prepare = fake.prepare

        def prepare_slowly(task: Task, items: Sequence[Item], params: Params) -> Prepared:
            assert may_go_on.wait(20)
            return prepare(task, items, params)

        fake.prepare = prepare_slowly  # type: ignore[method-assign]
        first = asyncio.ensure_future(embed(scheduler, "x" * 200, "x" * 100))
        await asyncio.sleep(0)
        assert scheduler.admission.queued_tokens == 50 + 2 + 25 + 2
        with pytest.raises(Overloaded, match="79 tokens wait, the limit is 100"):
            await embed(scheduler, "東" * 50)
        may_go_on.set()
        assert is_answer_to(await first, ["x" * 200, "x" * 100])
        assert scheduler.admission.queued_tokens == 0

    asyncio.run(main())


def test_ask_refused_items_leave_the_queue(make_fake: MakeFake) -> None:
    async def main() -> None:
        scheduler = scheduler_of(make_fake())
        with pytest.raises(InvalidText):
            await embed(scheduler, "good", "")
        assert scheduler.admission.queued_tokens == 0

    asyncio.run(main())


def test_ask_too_many_items(make_fake: MakeFake) -> None:
    async def main() -> None:
        fake = make_fake()
        scheduler = Scheduler(fake.engine, Settings(max_items=3))
        with pytest.raises(InvalidText, match="has 4 items; this server takes 3"):
            await embed(scheduler, *"abcd")
        assert fake.prepared == 0
        assert is_answer_to(await embed(scheduler, *"abc"), list("abc"))

    asyncio.run(main())


@pytest.mark.parametrize("broken", ["plan", "submit"])
def test_ask_fails_where_planning_does(make_fake: MakeFake, broken: str) -> None:
    async def main() -> None:
        fake = make_fake(streams=1)
        scheduler = scheduler_of(fake)
        fake.hold()
        asked = [asyncio.ensure_future(embed(scheduler, "first"))]
        await started(fake, 1)
        asked += [asyncio.ensure_future(embed(scheduler, text)) for text in ("one", "two")]
        await queued(scheduler, 11)
        owner = fake if broken == "plan" else fake.executor
        works = getattr(owner, broken)

        def fail(*_: object) -> None:
            raise ZeroDivisionError

        setattr(owner, broken, fail)
        fake.release()
        async with asyncio.timeout(20):
            first, *others = await asyncio.gather(*asked, return_exceptions=True)
        assert isinstance(first, Answer) and is_answer_to(first, ["first"])
        assert [type(other) for other in others] == [ZeroDivisionError] * 2
        assert scheduler.admission.queued_tokens == 0
        setattr(owner, broken, works)
        assert is_answer_to(await embed(scheduler, "next"), ["next"])

    asyncio.run(main())


def test_ask_fails_where_rows_are_missing(make_fake: MakeFake) -> None:
    async def main() -> None:
        fake = make_fake(streams=1)
        fake.execute = lambda *_, **__: []  # type: ignore[method-assign]
        with pytest.raises(BackendError, match="0 rows came back for 1"):
            async with asyncio.timeout(20):
                await embed(scheduler_of(fake), "text")

    asyncio.run(main())


def test_ask_cancelled_leaves_the_queue(make_fake: MakeFake) -> None:
    async def main() -> None:
        fake = make_fake(streams=1)
        scheduler = scheduler_of(fake)
        fake.hold()
        first = asyncio.ensure_future(embed(scheduler, "first"))
        await started(fake, 1)
        gone = asyncio.ensure_future(embed(scheduler, "gone"))
        stays = asyncio.ensure_future(embed(scheduler, "stays"))
        await queued(scheduler, 14)
        gone.cancel()
        await queued(scheduler, 10)
        fake.release()
        assert is_answer_to(await stays, ["stays"])
        await first
        assert fake.started == [["first"], ["stays"]]

    asyncio.run(main())


def test_ask_cancelled_while_it_runs(make_fake: MakeFake) -> None:
    async def main() -> None:
        fake = make_fake(streams=1)
        scheduler = scheduler_of(fake)
        fake.hold()
        gone = asyncio.ensure_future(embed(scheduler, "gone"))
        await started(fake, 1)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        fake.release()
        assert is_answer_to(await embed(scheduler, "next"), ["next"])
        assert scheduler.admission.queued_tokens == 0

    asyncio.run(main())


def test_drain_finishes_what_was_let_in(make_fake: MakeFake) -> None:
    async def main() -> None:
        fake = make_fake(streams=1)
        scheduler = scheduler_of(fake)
        fake.hold()
        asked = [asyncio.ensure_future(embed(scheduler, text)) for text in ("one", "two")]
        await started(fake, 1)
        draining = asyncio.ensure_future(scheduler.drain(20))
        await asyncio.sleep(0)
        for refused in (embed(scheduler, "late"), scheduler.probe()):
            with pytest.raises(Draining):
                await refused
        assert not draining.done()
        fake.release()
        assert await draining
        one, two = await asyncio.gather(*asked)
        assert is_answer_to(one, ["one"]) and is_answer_to(two, ["two"])

    asyncio.run(main())


def test_drain_gives_up_in_time(make_fake: MakeFake) -> None:
    async def main() -> None:
        fake = make_fake(streams=1)
        scheduler = scheduler_of(fake)
        fake.hold()
        asked = [asyncio.ensure_future(embed(scheduler, text)) for text in ("runs", "waits")]
        await started(fake, 1)
        await queued(scheduler, 9)
        assert not await scheduler.drain(0)
        for request in asked:
            with pytest.raises(Draining):
                await request
        fake.release()

    asyncio.run(main())


def test_drain_of_an_idle_server_is_at_once(make_fake: MakeFake) -> None:
    assert asyncio.run(scheduler_of(make_fake()).drain(0))


def test_probe_passes_a_full_queue(make_fake: MakeFake) -> None:
    async def main() -> None:
        fake = make_fake(streams=1)
        scheduler = scheduler_of(fake, max_queued_tokens=1)
        fake.hold()
        asked = asyncio.ensure_future(embed(scheduler, "text"))
        await started(fake, 1)
        probing = asyncio.ensure_future(scheduler.probe())
        await started(fake, 2)
        fake.release()
        await probing
        await asked

    asyncio.run(main())
