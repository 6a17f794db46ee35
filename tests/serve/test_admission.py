"""Admission: what is refused, why, and what never is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
import uvicorn

from poolc.errors import Overloaded
from poolc.serve.admission import Admission
from poolc.serve.app import create_app
from poolc.serve.server import _Server
from poolc.serve.settings import Settings
from tests.serve.conftest import MakeFake, client_of


def admission_of(**settings: object) -> Admission:
    """One stream that computes 100 tokens a second, and a queue that is not empty."""
    made = Admission(Settings(**settings), 1)  # type: ignore[arg-type]
    made.measured(100, 1.0)
    made.queued_tokens = 1
    return made


def test_who_would_begin_too_late_is_refused() -> None:
    admission = admission_of(max_queue_s=2.0)
    admission.waits(199, 0)
    admission.refuse_if_full(10_000, 0)  # how long a request is does not matter
    admission.waits(51, 0)
    with pytest.raises(Overloaded, match=r"begin after about 2\.5 s, the limit is 2 s"):
        admission.refuse_if_full(1, 0)
    admission.waits_no_more(199, 0)
    admission.refuse_if_full(1, 0)


def test_whoever_comes_first_by_priority_does_not_wait_for_others() -> None:
    admission = admission_of(max_queue_s=1.0)
    admission.waits(500, 0)
    admission.refuse_if_full(1, -1)
    with pytest.raises(Overloaded):
        admission.refuse_if_full(1, 1)
    assert admission.overloaded() is None, "the next one may be as important"


def test_priorities_that_are_gone_are_not_kept() -> None:
    """Clients send timestamps: every look would go through all that ever were."""
    admission = admission_of()
    for priority in range(100):
        admission.waits(5, priority)
        admission.waits(5, priority)
        admission.waits_no_more(5, priority)
    assert len(admission._first_tokens) == 100
    for priority in range(100):
        admission.waits_no_more(5, priority)
    assert not admission._first_tokens


def test_nothing_is_refused_before_anything_was_measured() -> None:
    admission = Admission(Settings(max_queue_s=0.1), 1)
    admission.queued_tokens = 1
    admission.waits(100_000, 0)
    admission.refuse_if_full(1, 0)


def test_more_streams_wait_less() -> None:
    admission = Admission(Settings(max_queue_s=2.0), 4)
    admission.measured(100, 1.0)
    admission.queued_tokens = 1
    admission.waits(799, 0)
    admission.refuse_if_full(1, 0)
    admission.waits(2, 0)
    with pytest.raises(Overloaded):
        admission.refuse_if_full(1, 0)


def test_retry_after_is_when_the_queue_is_done() -> None:
    admission = admission_of(max_queue_s=1.0)
    admission.queued_tokens = 700
    admission.waits(200, 0)
    with pytest.raises(Overloaded) as caught:
        admission.refuse_if_full(1, 0)
    assert caught.value.retry_after_s == pytest.approx(7.0)


def test_a_loop_that_is_behind_reads_no_more_than_there_are_streams_for() -> None:
    admission = admission_of(max_queue_s=10.0)
    admission.waits(150, 0)
    assert admission.overloaded() is None
    admission.behind_s = 0.6
    refused = admission.overloaded()
    assert refused is not None and "come faster than they are read" in str(refused)
    admission.refuse_if_full(1, 0)  # what was read is not thrown away
    admission.waits_no_more(100, 0)
    assert admission.overloaded() is None, "the streams would run dry"


def test_the_server_tells_how_far_its_loop_is_behind(make_fake: MakeFake) -> None:
    async def main() -> None:
        app = create_app({"a": make_fake().engine, "b": make_fake().engine}, Settings())
        server = _Server(uvicorn.Config(app, log_config=None), app, Settings(), lambda: None)
        admissions = [model.scheduler.admission for model in app.state.registry.models]
        await server.on_tick(1)
        assert [one.behind_s for one in admissions] == [0.0, 0.0]
        server._next_tick_s -= 3.0
        await server.on_tick(2)
        assert all(one.behind_s > 2.8 for one in admissions)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("path", "key"),
    [("/v1/embeddings", "object"), ("/embed", "error_type"), ("/v2/embed", "message")],
)
def test_a_full_server_refuses_without_reading(make_fake: MakeFake, path: str, key: str) -> None:
    read: list[str] = []

    async def main() -> None:
        app = create_app({"m": make_fake().engine}, Settings(max_queued_tokens=1))
        app.state.registry.models[0].scheduler.admission.queued_tokens = 1

        async def body() -> AsyncIterator[bytes]:
            read.append(path)
            yield b"{}"

        async with client_of(app) as client:
            refused: httpx.Response = await client.post(path, content=body())
            assert (refused.status_code, read) == (429, [])
            assert key in refused.json()
            assert int(refused.headers["retry-after"]) >= 1
            assert refused.headers["x-request-id"]
            assert (await client.get("/health")).status_code == 200
            shown = (await client.get("/metrics")).text
            assert 'poolc_rejections_total{reason="Overloaded"} 1.0' in shown

    asyncio.run(main())
