"""Probes: live is the loop, ready is the model."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from poolc.errors import BackendError
from poolc.runtime.engine import Engine
from poolc.serve.app import create_app
from poolc.serve.settings import Settings
from tests.serve.conftest import MakeClient, MakeFake, client_of


def probe(client: httpx.AsyncClient, path: str, method: str = "GET") -> httpx.Response:
    return asyncio.run(client.request(method, path))


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_probe_of_a_healthy_server(
    embedder: Engine, make_client: MakeClient, path: str, method: str
) -> None:
    assert probe(make_client(tiny=embedder), path, method).status_code == 200


def test_ready_runs_every_model(make_client: MakeClient, make_fake: MakeFake) -> None:
    one, two = make_fake(), make_fake()
    assert probe(make_client(one=one.engine, two=two.engine), "/ready").status_code == 200
    assert one.started and two.started


@pytest.mark.parametrize("kind", ["classifier", "cross_encoder"])
def test_ready_of_other_tasks(
    make_client: MakeClient, kind: str, request: pytest.FixtureRequest
) -> None:
    assert probe(make_client(m=request.getfixturevalue(kind)), "/ready").status_code == 200


def test_ready_is_503_when_one_of_several_devices_fails(
    make_client: MakeClient, make_fake: MakeFake
) -> None:
    first, second = make_fake(), make_fake()
    first.others = [second]
    assert probe(make_client(m=first.engine), "/ready").status_code == 200
    second.poison, second.failure = "ready", BackendError("cudaErrorLaunchFailure")
    assert probe(make_client(m=first.engine), "/ready").status_code == 503


def test_ready_is_503_when_a_model_fails(make_client: MakeClient, make_fake: MakeFake) -> None:
    fake = make_fake()
    fake.poison, fake.failure = "ready", BackendError("no")
    response = probe(make_client(m=fake.engine), "/ready")
    assert (response.status_code, response.json()["type"]) == (503, "ServiceUnavailableError")
    assert probe(make_client(m=fake.engine), "/health").status_code == 200


def test_ready_is_503_while_draining(make_fake: MakeFake) -> None:
    async def main() -> tuple[httpx.Response, httpx.Response]:
        app = create_app({"m": make_fake().engine}, Settings())
        await app.state.registry.drain(0)
        async with client_of(app) as client:
            return await client.get("/ready"), await client.get("/health")

    ready, health = asyncio.run(main())
    assert (ready.status_code, health.status_code) == (503, 200)
    assert ready.headers["retry-after"] == "1"
