"""Spans of requests, read back from OpenTelemetry's own SDK."""

from __future__ import annotations

import asyncio

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from poolc.errors import MissingDependency
from poolc.runtime.engine import Engine
from poolc.serve import app as app_module
from poolc.serve.app import create_app
from poolc.serve.settings import Settings
from poolc.serve.tracing import open_tracer
from tests.serve.conftest import client_of

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    monkeypatch.setattr(app_module, "open_tracer", lambda: provider.get_tracer("test"))
    return kept


def test_a_request_and_its_phases(exporter: InMemorySpanExporter, embedder: Engine) -> None:
    client = client_of(create_app({"tiny": embedder}, Settings(traces=True)))
    headers = {"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01", "x-request-id": "mine"}

    async def ask() -> None:
        async with client:
            body = {"input": ["a secret text"]}
            await client.post("/v1/embeddings", json=body, headers=headers)
            await client.post("/v1/embeddings", json={"input": []}, headers=headers)

    asyncio.run(ask())
    spans = exporter.get_finished_spans()
    good, bad = [span for span in spans if span.name == "POST /v1/embeddings"]
    phases = {span.name: span for span in spans if span.parent and span.parent.span_id
              == good.context.span_id}  # fmt: skip
    assert set(phases) == {"tokenize", "queue", "inference", "serialize"}
    assert {f"{span.context.trace_id:032x}" for span in spans} == {TRACE_ID}
    assert good.parent is not None and f"{good.parent.span_id:016x}" == SPAN_ID
    assert good.attributes is not None and bad.attributes is not None
    assert good.attributes["http.response.status_code"] == 200
    assert good.attributes["poolc.request_id"] == "mine"
    assert bad.attributes["http.response.status_code"] == 400
    ends = [phases[name].end_time for name in ("tokenize", "queue", "inference")]
    starts = [phases[name].start_time for name in ("queue", "inference")]
    assert ends[:2] == starts  # one after the other, without a gap
    assert "secret" not in "".join(span.to_json() for span in spans)


def test_nothing_is_traced_unless_asked_for(
    exporter: InMemorySpanExporter, embedder: Engine
) -> None:
    client = client_of(create_app({"tiny": embedder}, Settings()))

    async def ask() -> None:
        async with client:
            await client.post("/v1/embeddings", json={"input": ["a"]})

    asyncio.run(ask())
    assert not exporter.get_finished_spans()


def test_without_the_exporter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.exporter", None)
    with pytest.raises(MissingDependency, match=r'pip install "poolc\[traces\]"'):
        open_tracer()
