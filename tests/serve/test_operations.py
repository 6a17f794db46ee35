"""What surrounds every request: keys, ids, times, log lines, counts, origins."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi.responses import StreamingResponse
from prometheus_client.parser import text_string_to_metric_families

from poolc.errors import BackendError, InvalidOption
from poolc.runtime.engine import Engine
from poolc.serve.app import create_app
from poolc.serve.logs import JsonFormatter, log_config
from poolc.serve.settings import Settings
from tests.serve.conftest import MakeClient, MakeFake, client_of
from tests.serve.speaking import answer, get, post

TEXTS = ["the quick brown fox", "no"]
REQUESTS = "poolc_requests_total"
KEYS = ("first key", "second")


def ask(client: httpx.AsyncClient, headers: dict[str, str], path: str = "/v1/embeddings") -> int:
    return asyncio.run(client.post(path, json={"input": "text"}, headers=headers)).status_code


# Keys.


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer second"},
        {"authorization": "bearer second"},
        {"authorization": "Bearer first key"},
        {"authorization": "second"},  # LlamaIndex
        {"x-api-key": "second"},
    ],
)
def test_key_that_fits(make_client: MakeClient, embedder: Engine, headers: dict[str, str]) -> None:
    assert ask(make_client(Settings(api_keys=KEYS), m=embedder), headers) == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": "Bearer secon"},
        {"authorization": "Basic second"},
        {"x-api-key": "Second"},
    ],
)
def test_key_that_does_not(
    make_client: MakeClient, embedder: Engine, headers: dict[str, str]
) -> None:
    client = make_client(Settings(api_keys=KEYS), m=embedder)
    assert ask(client, headers) == 401


def test_every_route_but_probes_asks_for_a_key(make_client: MakeClient, embedder: Engine) -> None:
    client = make_client(Settings(api_keys=KEYS), m=embedder)
    for path in ("/metrics", "/openapi.json", "/docs", "/v1/models", "/info", "/nothing"):
        assert get(client, path).status_code == 401
    for path in ("/health", "/ready", "/ping", "/.well-known/live"):
        assert get(client, path).is_success
    refused = post(client, "/embed", inputs="a")
    assert list(refused.json()) == ["error", "error_type"]
    assert refused.headers["www-authenticate"] == "Bearer"
    client.headers["x-api-key"] = "second"
    assert 'poolc_rejections_total{reason="Unauthorized"} 7.0' in get(client, "/metrics").text


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_probes(make_client: MakeClient, embedder: Engine, method: str) -> None:
    client = make_client(Settings(api_keys=KEYS), m=embedder)
    for path in ("/health", "/ready", "/ping", "/"):
        response = asyncio.run(client.request(method, path))
        assert response.status_code == 200, path
        assert method == "HEAD" or response.json()["status"] in ("ok", "ready")
    for path in ("/.well-known/ready", "/.well-known/live"):
        assert asyncio.run(client.request(method, path)).status_code == 204, path
    assert post(client, "/", inputs="a").status_code == 401


@pytest.mark.parametrize("path", ["/ready", "/.well-known/ready"])
def test_probes_of_a_model_that_does_not_answer(
    make_client: MakeClient, make_fake: MakeFake, path: str
) -> None:
    fake = make_fake()
    fake.poison, fake.failure = "", BackendError("broken")
    client = make_client(m=fake.engine)
    assert asyncio.run(client.head(path)).status_code == 503


# Ids, times and logs.


def test_request_id(make_client: MakeClient, embedder: Engine) -> None:
    client = make_client(m=embedder)

    def id_of(**headers: str) -> str:
        response = asyncio.run(client.post("/v1/embeddings", json={"input": "a"}, headers=headers))
        return str(response.headers["x-request-id"])

    assert id_of(**{"x-request-id": "mine-1"}) == "mine-1"
    made = {id_of(), id_of(), id_of(**{"x-request-id": "x" * 200})}
    assert len(made) == 3
    assert all(len(one) == 32 for one in made)
    assert "x-request-id" in get(client, "/nothing").headers


def test_times_of_a_reply(make_client: MakeClient, embedder: Engine) -> None:
    headers = post(make_client(m=embedder), "/embed", inputs=TEXTS).headers
    for name in ("x-tokenization-time", "x-queue-time", "x-inference-time"):
        assert 0 <= float(headers[name]) < 60_000


def test_log_has_no_text(
    make_client: MakeClient,
    embedder: Engine,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = make_client(m=embedder)
    with caplog.at_level(logging.DEBUG):
        monkeypatch.setattr(logging.getLogger("poolc"), "propagate", True)
        answer(client, "/v1/embeddings", input="the fox is secret")
        post(client, "/v1/embeddings", input="the fox is secret", dimensions=3)
    lines = [record for record in caplog.records if record.name == "poolc.access"]
    assert [record.fields["status"] for record in lines] == [200, 400]  # type: ignore[attr-defined]
    written = [JsonFormatter().format(record) for record in caplog.records]
    assert "secret" not in "".join(written)
    first = json.loads(JsonFormatter().format(lines[0]))
    assert (first["method"], first["path"], first["level"]) == ("POST", "/v1/embeddings", "info")
    assert first["request_id"] in lines[0].getMessage()


def test_a_path_is_no_line_of_the_log(
    make_client: MakeClient, embedder: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever stands in it: a line's end, spaces, or what a terminal obeys."""
    made = log_config(Settings())["formatters"]["line"]
    formatter: logging.Formatter = made.pop("()")(**made)
    path = "/x%0AINFO%20poolc.access:%20200%201.0%20ms%1B[31m"
    with caplog.at_level(logging.INFO):
        get(make_client(m=embedder), path)
        logging.getLogger("poolc.serve").error("%s failed\n", "\x1b[31m\x9b\r\né")
    first, second = map(formatter.format, (r for r in caplog.records if "poolc" in r.name))
    assert f"GET {path} 404 " in first
    assert second == "ERROR poolc.serve: \\x1b[31m\\x9b\\r\\né failed"


# Counts.


def samples(client: httpx.AsyncClient) -> dict[tuple[str, ...], float]:
    """Return every sample of /metrics by its name and the values of its labels."""
    response = get(client, "/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def test_a_reply_is_counted_before_it_leaves(embedder: Engine) -> None:
    """Or whoever has it could read the counts and not find it, as of another worker."""
    app = create_app({"m": embedder}, Settings())
    seen: list[float] = []

    async def watched(scope: Any, receive: Any, send: Any) -> None:
        async def count_first(message: Any) -> None:
            if message["type"] == "http.response.body" and not message.get("more_body"):
                found = text_string_to_metric_families(app.state.metrics.exposition().decode())
                seen.append(sum(s.value for f in found for s in f.samples if s.name == REQUESTS))
            await send(message)

        await app(scope, receive, count_first)

    for _ in range(2):
        answer(client_of(watched), "/v1/embeddings", input=TEXTS)
    assert seen == [1, 2]


def test_metrics(make_client: MakeClient, embedder: Engine) -> None:
    client = make_client(m=embedder)
    tokens = answer(client, "/v1/embeddings", input=TEXTS)["usage"]["total_tokens"]
    post(client, "/v1/embeddings", input="a", dimensions=3)
    get(client, "/made/up")
    found = samples(client)
    assert found["poolc_requests_total", "/v1/embeddings", "200"] == 1
    assert found["poolc_requests_total", "/v1/embeddings", "400"] == 1
    assert found["poolc_requests_total", "(other)", "404"] == 1
    assert found["poolc_rejections_total", "InvalidDimensions"] == 1
    assert found["poolc_tokens_total", "m"] == tokens
    lengths = [len(embedder.tokenize(text)) for text in TEXTS]
    assert found["poolc_padding_tokens_total", "m"] == max(lengths) * 2 - sum(lengths)
    for phase in ("tokenize", "queue", "execute", "serialize"):
        assert found[f"poolc_{phase}_seconds_count", "m"] == 1
    assert found["poolc_queue_tokens", "m"] == found["poolc_queue_requests", "m"] == 0
    assert found["poolc_model_bytes", "m"] == sum(embedder.artifact.sizes().values())
    assert found["process_resident_memory_bytes",] > 1e6


def test_metrics_of_failures(make_client: MakeClient, make_fake: MakeFake) -> None:
    fake = make_fake()
    fake.artifact.sizes = lambda: {"model.onnx": 1}
    fake.failure = BackendError("broken")
    client = make_client(m=fake.engine)
    assert post(client, "/v1/embeddings", input="poison").status_code == 500
    assert samples(client)["poolc_rejections_total", "BackendError"] == 1


@pytest.mark.parametrize("begun", [False, True])
def test_what_nobody_foresaw_is_counted_and_has_an_id(
    embedder: Engine, caplog: pytest.LogCaptureFixture, begun: bool
) -> None:
    app = create_app({"m": embedder}, Settings())

    @app.get("/broken")
    async def broken() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"a part"
            raise RuntimeError("nobody foresaw this")

        if begun:
            return StreamingResponse(parts())
        raise RuntimeError("nobody foresaw this")

    with caplog.at_level(logging.INFO, "poolc.access"):
        response = get(client_of(app), "/broken")
    assert len(response.headers["x-request-id"]) == 32
    (line,) = caplog.records
    assert line.fields["status"] == 500  # type: ignore[attr-defined]
    assert line.fields["request_id"] == response.headers["x-request-id"]  # type: ignore[attr-defined]
    if not begun:
        assert response.status_code == 500
        assert response.json()["error"]["type"] == "InternalServerError"
    assert samples(client_of(app))["poolc_requests_total", "/broken", "500"] == 1


# Time.


def test_request_that_takes_too_long(make_client: MakeClient, make_fake: MakeFake) -> None:
    fake = make_fake()
    fake.hold()
    client = make_client(Settings(request_timeout_s=0.05), m=fake.engine)
    response = post(client, "/v1/embeddings", input="text")
    assert response.status_code == 504
    assert "not answered within 0.05 s" in response.json()["message"]
    fake.release()
    assert post(client, "/v1/embeddings", input="text").status_code == 200


# Web pages, and settings that no server can run with.


def test_allowed_origins(make_client: MakeClient, embedder: Engine) -> None:
    settings = Settings(allowed_origins=("https://here.example",), api_keys=KEYS)
    client = make_client(settings, m=embedder)

    def preflight(origin: str) -> str:
        headers = {"origin": origin, "access-control-request-method": "POST"}
        response = asyncio.run(client.options("/v1/embeddings", headers=headers))
        return str(response.headers.get("access-control-allow-origin"))

    assert preflight("https://here.example") == "https://here.example"
    assert preflight("https://elsewhere.example") == "None"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"request_timeout_s": 0}, "request_timeout_s is 0; allowed: more than 0"),
        ({"ssl_certfile": "c"}, "give ssl_keyfile"),
        ({"ssl_keyfile": "k"}, "give ssl_certfile"),
        ({"api_keys": ("",)}, "an API key is empty"),
        ({"root_path": "models"}, "begins with /"),
        ({"root_path": "/models/"}, "does not end"),
    ],
)
def test_settings_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        Settings(**options)
