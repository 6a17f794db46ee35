"""OpenTelemetry spans of requests and of their phases; optional, with ``--traces``.

One server span a request, which goes on from the caller's ``traceparent``, and a child for each of
tokenize, queue, inference and serialize. Where spans go is OpenTelemetry's own configuration
(``OTEL_EXPORTER_OTLP_ENDPOINT``, ``OTEL_SERVICE_NAME``, ...). No text of a request is in them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from poolc import __version__
from poolc.errors import MissingDependency
from poolc.serve.middleware import App, Receive, Scope, Send
from poolc.serve.scheduler import Answer

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

_NS = 1_000_000_000
_STATE = "trace"
_SERVER_ERROR = 500


def open_tracer() -> Tracer:
    """Return a tracer whose spans go where OpenTelemetry's environment says.

    Raises MissingDependency without the packages of the extra ``traces``.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f'traces need {error.name}, which is not installed: pip install "poolc[traces]"'
        ) from error
    named = "OTEL_SERVICE_NAME" in os.environ
    resource = Resource.create({} if named else {"service.name": "poolc"})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider.get_tracer("poolc", __version__)


class Traced:
    """Puts a server span around every request."""

    def __init__(self, app: App, tracer: Tracer) -> None:
        self._app, self._tracer = app, tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        from opentelemetry.propagate import extract
        from opentelemetry.trace import SpanKind, StatusCode

        headers = {
            key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]
        }
        with self._tracer.start_as_current_span(
            f"{scope['method']}", context=extract(headers), kind=SpanKind.SERVER
        ) as span:
            span.set_attribute("http.request.method", scope["method"])
            span.set_attribute("url.path", scope["path"])
            scope.setdefault("state", {})[_STATE] = Phases(self._tracer)

            async def noting_status(message: MutableMapping[str, Any]) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                    if message["status"] >= _SERVER_ERROR:
                        span.set_status(StatusCode.ERROR)
                await send(message)

            await self._app(scope, receive, noting_status)
            path = getattr(scope.get("route"), "path", None)
            if path is not None:
                span.update_name(f"{scope['method']} {path}")
                span.set_attribute("http.route", path)
            request_id = scope["state"].get("request_id")
            if request_id is not None:
                span.set_attribute("poolc.request_id", request_id)


class Phases:
    """The phases of one request, told once they are over."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def answered(self, model: str, answer: Answer) -> None:
        """Tell what led to an answer that has just come."""
        end_ns = time.time_ns()
        attributes = {"poolc.model": model, "poolc.tokens": answer.num_tokens}
        for name, seconds in (
            ("inference", answer.inference_s),
            ("queue", answer.queue_s),
            ("tokenize", answer.tokenize_s),
        ):
            start_ns = end_ns - int(seconds * _NS)
            self._tell(name, start_ns, end_ns, attributes)
            end_ns = start_ns

    def serialized(self, model: str, seconds: float) -> None:
        """Tell how long the reply just took to be written."""
        end_ns = time.time_ns()
        self._tell("serialize", end_ns - int(seconds * _NS), end_ns, {"poolc.model": model})

    def _tell(self, name: str, start_ns: int, end_ns: int, attributes: Mapping[str, Any]) -> None:
        span = self._tracer.start_span(name, start_time=start_ns, attributes=dict(attributes))
        span.end(end_ns)


def phases_of(state: Any) -> Phases | None:
    """Return where a request's phases are told; None where nobody traces."""
    found: Phases | None = getattr(state, _STATE, None)
    return found
