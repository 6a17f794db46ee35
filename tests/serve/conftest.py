"""Engines and clients of the server's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from poolc.runtime.engine import Engine
from poolc.serve.app import create_app
from poolc.serve.settings import Settings
from tests.serve.fakes import FakeEngine

MakeFake = Callable[..., FakeEngine]
MakeClient = Callable[..., httpx.AsyncClient]


@pytest.fixture
def make_fake() -> Iterator[MakeFake]:
    """Make fake engines that are closed when the test ends."""
    made: list[FakeEngine] = []

    def make(**options: Any) -> FakeEngine:
        made.append(FakeEngine(**options))
        return made[-1]

    yield make
    for fake in made:
        fake.close()


def client_of(app: Any) -> httpx.AsyncClient:
    """Return a client that speaks to ``app`` without a socket."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://poolc")


@pytest.fixture
def make_client() -> MakeClient:
    """Make a client of a server with these engines, by name, and these settings."""

    def make(settings: Settings | None = None, /, **engines: Engine) -> httpx.AsyncClient:
        return client_of(create_app(engines, settings or Settings()))

    return make
