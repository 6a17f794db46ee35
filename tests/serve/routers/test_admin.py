"""Models that are added and removed while the server runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import poolc
from poolc.errors import InvalidOption
from poolc.runtime.engine import Engine
from poolc.serve.app import create_app
from poolc.serve.settings import Settings
from tests.serve.conftest import client_of

KEY = {"authorization": "Bearer k"}
SETTINGS = Settings(admin=True, api_keys=("k",), drain_timeout_s=30)


@pytest.fixture
def loaded() -> list[Engine]:
    """Engines that the server loaded itself."""
    return []


@pytest.fixture
def client(
    embedder: Engine, loaded: list[Engine], tiny_classifier: Path
) -> Callable[[], httpx.AsyncClient]:
    def load(model: str) -> Engine:
        loaded.append(poolc.load(model))
        return loaded[-1]

    app = create_app({"first": embedder}, SETTINGS, load)
    return lambda: client_of(app)


async def ask(client: httpx.AsyncClient, method: str, path: str, **body: Any) -> httpx.Response:
    return await client.request(method, path, json=body or None, headers=KEY)


def run(work: Callable[[httpx.AsyncClient], Any], client: Callable[[], httpx.AsyncClient]) -> Any:
    async def inside() -> Any:
        async with client() as opened:
            return await work(opened)

    return asyncio.run(inside())


def test_a_model_comes_answers_and_goes(
    client: Callable[[], httpx.AsyncClient], tiny_classifier: Path, classifier: Engine
) -> None:
    async def work(opened: httpx.AsyncClient) -> None:
        added = await ask(
            opened, "POST", "/admin/models", model=str(tiny_classifier), names=["second"]
        )
        assert added.status_code == 201, added.text
        shown = added.json()
        assert shown["names"] == ["second"]
        assert shown["artifact"] == classifier.artifact.artifact_id
        asked = await ask(opened, "POST", "/classify", model="second", input=["a fox"])
        probs = np.array(asked.json()["data"][0]["probs"], np.float32)
        assert np.array_equal(probs, classifier.classify(["a fox"]).probs[0])
        listed = await ask(opened, "GET", "/admin/models")
        assert [one["names"][0] for one in listed.json()["models"]] == ["first", "second"]
        metrics = await ask(opened, "GET", "/metrics")
        assert 'poolc_queue_tokens{model="second"}' in metrics.text
        removed = await ask(opened, "DELETE", "/admin/models/second")
        assert removed.json() == {"names": ["second"], "finished": True}
        gone = await ask(opened, "POST", "/classify", model="second", input=["a fox"])
        assert gone.status_code == 400  # one model is left, which answers to every name
        ready = await opened.get("/ready")
        assert ready.status_code == 200

    run(work, client)


def test_what_is_refused_changes_nothing(
    client: Callable[[], httpx.AsyncClient],
    tiny_classifier: Path,
    tmp_path: Path,
    loaded: list[Engine],
) -> None:
    async def work(opened: httpx.AsyncClient) -> None:
        missing = await ask(opened, "POST", "/admin/models", model=str(tmp_path / "nothing"))
        assert missing.status_code == 400 and "cannot be loaded" in missing.json()["message"]
        taken = await ask(
            opened, "POST", "/admin/models", model=str(tiny_classifier), names=["first"]
        )
        assert taken.status_code == 409 and "answers to 'first' already" in taken.json()["message"]
        for names in (["", " "], [" "], ["a", "a"]):
            odd = await ask(
                opened, "POST", "/admin/models", model=str(tiny_classifier), names=names
            )
            assert odd.status_code == 400 and "names that differ" in odd.json()["message"]
        last = await ask(opened, "DELETE", "/admin/models/first")
        assert last.status_code == 409 and "the only model" in last.json()["message"]
        unknown = await ask(opened, "DELETE", "/admin/models/second")
        assert unknown.status_code == 404
        listed = await ask(opened, "GET", "/admin/models")
        assert len(listed.json()["models"]) == 1

    run(work, client)
    assert not loaded


def test_a_model_that_does_not_answer_gets_no_requests(
    embedder: Engine, tiny_classifier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(model: str) -> Engine:
        engine = poolc.load(model)
        engine._backend.close()
        return engine

    app = create_app({"first": embedder}, SETTINGS, load)

    async def work(opened: httpx.AsyncClient) -> None:
        added = await ask(opened, "POST", "/admin/models", model=str(tiny_classifier))
        assert added.status_code == 400 and "does not answer" in added.json()["message"]
        listed = await ask(opened, "GET", "/admin/models")
        assert len(listed.json()["models"]) == 1

    run(work, lambda: client_of(app))


def test_requests_under_way_are_finished(
    client: Callable[[], httpx.AsyncClient], tiny_classifier: Path
) -> None:
    async def work(opened: httpx.AsyncClient) -> None:
        body = {"model": str(tiny_classifier), "names": ["second"]}
        await ask(opened, "POST", "/admin/models", **body)
        texts = ["the quick brown fox"] * 3000
        asked = asyncio.ensure_future(ask(opened, "POST", "/classify", model="second", input=texts))
        while (
            'poolc_queue_requests{model="second"} 1.0'
            not in (await ask(opened, "GET", "/metrics")).text
        ):
            assert not asked.done()
            await asyncio.sleep(0)  # within one process nothing else would let the request go on
        removed = await ask(opened, "DELETE", "/admin/models/second")
        assert removed.json()["finished"] is True
        assert len((await asked).json()["data"]) == len(texts)

    run(work, client)


def test_openapi_tells_of_conflicts(client: Callable[[], httpx.AsyncClient]) -> None:
    async def work(opened: httpx.AsyncClient) -> None:
        paths = (await ask(opened, "GET", "/openapi.json")).json()["paths"]
        assert "409" in paths["/admin/models"]["post"]["responses"]
        assert "409" in paths["/admin/models/{name}"]["delete"]["responses"]

    run(work, client)


def test_no_admin_without_being_asked_for(embedder: Engine) -> None:
    app = create_app({"first": embedder}, Settings())

    async def work(opened: httpx.AsyncClient) -> None:
        assert (await opened.get("/admin/models")).status_code == 404

    run(work, lambda: client_of(app))
    with pytest.raises(InvalidOption, match="admin lets whoever asks load any model"):
        Settings(admin=True)
