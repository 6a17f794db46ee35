"""Load on a real port: every request is sent, and what became of each is told."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from poolc.bench import report
from poolc.bench.asks import SEED, Dialect, asks, made_texts, read_texts
from poolc.bench.connections import Target
from poolc.bench.load import Outcome, closed, open_loop, percentile
from poolc.cli.main import main
from poolc.errors import InputError, InvalidOption, PoolcError


class Answers:
    """A server whose answers a test decides."""

    def __init__(self) -> None:
        self.got: list[tuple[str, Any, str]] = []  # path, body, authorization
        self.statuses: list[int] = []  # of the next requests; then 200
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        told = request.headers.get("authorization", "")
        self.got.append((request.path, await request.json(), told))
        return web.json_response({}, status=self.statuses.pop(0) if self.statuses else 200)


@contextmanager
def serving(answers: Answers) -> Iterator[Answers]:
    loop = asyncio.new_event_loop()
    app = web.Application()
    app.router.add_post("/{path:.*}", answers.handle)
    runner = web.AppRunner(app)

    async def start() -> int:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return int(runner.addresses[0][1])

    answers.url = f"http://127.0.0.1:{loop.run_until_complete(start())}"
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield answers
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()


@pytest.fixture
def server() -> Iterator[Answers]:
    with serving(Answers()) as answers:
        yield answers


def test_clients_ask_in_turns(server: Answers) -> None:
    texts = made_texts(10)
    target = Target(server.url, {"Authorization": "Bearer k"})
    outcome = closed(target, asks(texts, Dialect.OPENAI, "m", 2), 3, 0.3)
    found = outcome.summary()
    assert found["statuses"] == {"200": len(server.got)} and len(server.got) >= 3
    assert found["requests"] == len(outcome.latencies_s) == len(server.got)
    assert outcome.texts == 2 * len(server.got)
    path, body, told = server.got[0]
    assert (path, told) == ("/v1/embeddings", "Bearer k")
    assert body == {"input": texts[:2], "model": "m", "encoding_format": "base64"}
    assert (
        0 < found["latency_ms"]["p50"] <= found["latency_ms"]["p99"] <= found["latency_ms"]["max"]
    )


def test_refusals_are_counted_and_have_no_latency(server: Answers) -> None:
    server.statuses = [429, 503, 429]
    outcome = closed(Target(server.url), asks(["a"], Dialect.TEI, "", 1), 1, 0.2)
    assert outcome.statuses["429"] == 2 and outcome.statuses["503"] == 1
    assert len(outcome.latencies_s) == outcome.statuses["200"] > 0


def test_a_server_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(Answers()) as gone:
        pass
    sent = asks(["a"], Dialect.VLLM, "", 1)
    for load in (closed, open_loop):
        with pytest.raises(PoolcError, match=f"nothing answers at {gone.url}: start the server"):
            load(Target(gone.url), sent, 2, 0.1)
    with pytest.raises(SystemExit) as ended:
        main(["bench", "serve", gone.url])
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("error: nothing answers at ")


def test_a_server_that_goes(server: Answers) -> None:
    async def leave(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    server.handle = leave  # type: ignore[method-assign]
    with serving(server) as leaving:
        outcome = closed(Target(leaving.url), asks(["a"], Dialect.VLLM, "", 1), 2, 0.1)
    assert set(outcome.statuses) == {"no connection"}
    assert np.isnan(outcome.summary()["latency_ms"]["p50"])


def test_a_rate_is_kept_whatever_comes_back(server: Answers) -> None:
    """The same moments every time, by the seed; none is left out."""
    outcome = open_loop(Target(server.url), asks(["a"], Dialect.OLLAMA, "m", 1), 200, 0.5)
    draw, due, count = random.Random(SEED), 0.0, 0
    while (due := due + draw.expovariate(200)) < 0.5:
        count += 1
    assert sum(outcome.statuses.values()) == len(server.got) == count


@pytest.mark.parametrize("dialect", Dialect)
def test_requests_are_what_each_dialect_wants(server: Answers, dialect: Dialect) -> None:
    (ask,) = asks(["a", "b"], dialect, "m", 2)
    closed(Target(server.url), [ask], 1, 0.05)
    path, body, _ = server.got[0]
    assert path == ask.path
    assert ["a", "b"] in body.values()


@given(
    values=st.lists(st.floats(0, 100), min_size=1, max_size=50),
    percent=st.sampled_from([50, 90, 99]),
)
def test_percentiles_are_numpys(values: list[float], percent: int) -> None:
    wanted = np.percentile(values, percent, method="inverted_cdf")
    assert percentile(sorted(values), percent) == wanted


def test_command_line(server: Answers, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"text": "one"}\n{"text": "two"}\n', encoding="utf-8")
    out = tmp_path / "found.json"
    command = ["bench", "serve", server.url, "--clients", "1,2", "--seconds", "0.1"]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--texts", str(texts), "--json", str(out), "--dialect", "tei"])
    assert ended.value.code == 0
    assert list(json.loads(out.read_text())) == ["1 clients", "2 clients"]
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split()[:2] == ["load", "requests/s"] and len(printed) == 3
    assert server.got[0][1] == {"inputs": ["one"]}


@pytest.mark.parametrize(
    "options",
    [["--clients", "x"], ["--clients", "0"], ["--dialect", "none"], ["--items", "0"]],
)
def test_options_that_make_no_sense(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench", "serve", "http://127.0.0.1:1", *options])
    assert ended.value.code not in (0, None)
    assert capsys.readouterr().err.startswith("error: ")


def test_texts_that_cannot_be_read(tmp_path: Path) -> None:
    empty, broken = tmp_path / "empty.txt", tmp_path / "broken.jsonl"
    empty.write_text("\n")
    broken.write_text('{"text": "a"}\n{"txt": "b"}\n')
    for path, message in (
        (empty, "holds no text"),
        (broken, "line 2: not a JSON object with text"),
        (tmp_path / "none", "cannot read"),
    ):
        with pytest.raises(InputError, match=message):
            read_texts(path)
    with pytest.raises(InvalidOption, match="both must be more than 0"):
        open_loop(Target(""), [], 0, 1)


def test_table() -> None:
    outcome = Outcome([0.001, 0.002], texts=2, seconds=1.0)
    outcome.statuses.update({"200": 2, "429": 1})
    header, row = report.table({"8 clients": outcome}).splitlines()
    assert header.split("  ")[0] == "load" and "2 x 200, 1 x 429" in row
