"""The server's processes: bind, load, run, and stop well. Knows signals, no requests.

The first SIGTERM or SIGINT stops admission (503, ``/ready`` too) while the port stays open,
finishes what was let in, then closes. A second one ends the process at once.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import Any, NoReturn

import uvicorn
from fastapi import FastAPI

from poolc import api
from poolc.runtime.cores import compute_behind, share_cores
from poolc.runtime.engine import Engine
from poolc.serve.app import create_app
from poolc.serve.certificate import check_certificate
from poolc.serve.descriptors import allow_many
from poolc.serve.gauges import forget_process, shared_metrics
from poolc.serve.listening import bind, bound, cannot_listen, url_of
from poolc.serve.logs import configure_logging, log_config
from poolc.serve.metrics import Metrics
from poolc.serve.protocol import BoundedProtocol
from poolc.serve.registry import Registry, check_names
from poolc.serve.routers.admin import Load
from poolc.serve.settings import Settings
from poolc.serve.workers import Place, supervise

log = logging.getLogger("poolc.serve")

# Longer than clients keep idle connections: it is never the server who closes one just as a
# request is sent on it.
_KEEP_ALIVE_S = 75
# What replies that are ready get to leave, however little of the drain's time is left.
_LAST_REPLIES_S = 1
_TICKS_A_SECOND = 10  # uvicorn's
# Almost all of a request goes without a collection; thousands that wait were a quarter of the event
# loop's time by the default.
_COLLECT_AFTER = (5000, 20, 20)
# Of micro-batches: they take what the event loop leaves, and a tenth of a core that both want.
_MODEL_NICENESS = 10


def serve(
    models: Sequence[str],
    settings: Settings,
    *,
    on_event: api.OnEvent | None = None,
    **options: Any,
) -> None:
    """Load models (artifacts, folders or hub ids, compiled on first use) and serve them.

    ``options`` and ``on_event`` are those of ``poolc.load``. The port is taken before anything is
    loaded. Returns after a clean stop; a stop that had to cut requests off ends the process with
    status 1, a second signal with 128 and its number. With several workers this process serves
    nothing: it watches over those that do.

    Raises InvalidOption for names that do not fit the models, a certificate that cannot be used or
    an address that cannot be listened on, and as ``poolc.load`` does.
    """
    models = list(dict.fromkeys(models))
    check_names(models, settings.served_model_names)
    check_certificate(settings)
    compute_behind(_MODEL_NICENESS)

    def load(model: str) -> Engine:
        return api.load(model, on_event=on_event, **options)

    with bound(settings) as taken:
        engines = {m: load(m) for m in models}
        taken.check_ours()  # a load can take minutes
        with closing_all(engines):
            if settings.workers == 1:
                run(engines, settings, taken.listener, load)
                return
        # They were compiled where they had to be, and are known to load.
        status = _serve_by_workers(models, settings, taken.listener, {**options, "refresh": False})
    if status:
        _exit_now(status)


def _serve_by_workers(
    models: Sequence[str], settings: Settings, listener: socket.socket, options: Mapping[str, Any]
) -> int:
    """Watch over workers until a signal; return the exit status."""
    given: socket.socket | None = listener
    kept = listener
    if settings.uds is None:
        # Until now the port was not shared: no other server can have been there.
        settings = replace(settings, port=listener.getsockname()[1])
        listener.close()
        given, kept = None, bind(settings, shared=True)
    configure_logging(settings)
    log.info("%d workers, watched over by process %d", settings.workers, os.getpid())
    with kept, shared_metrics():
        arguments = (models, settings, given, options)
        return supervise(settings.workers, _work, *arguments, on_end=forget_process)


def _work(
    place: Place,
    models: Sequence[str],
    settings: Settings,
    listener: socket.socket | None,
    options: Mapping[str, Any],
) -> None:
    """Be one of several processes that serve the same models; files of weights are shared."""
    share_cores(settings.workers)
    compute_behind(_MODEL_NICENESS)
    most = math.ceil(settings.max_queued_tokens / settings.workers)
    own = dict(options)
    devices = str(own.get("device") or "").split(",")
    if len(devices) > 1:  # dealt, where there are several
        own["device"] = devices[place.index % len(devices)]
    with listener or bind(settings, shared=True) as listening:
        engines = {m: api.load(m, **own) for m in models}
        with closing_all(engines):
            run(engines, replace(settings, max_queued_tokens=most), listening,
                on_listening=place.ready)  # fmt: skip


@contextmanager
def closing_all(engines: Mapping[str, Engine]) -> Iterator[None]:
    """Close engines at the end."""
    try:
        yield
    finally:
        for engine in engines.values():
            engine.close()


def run(
    engines: Mapping[str, Engine],
    settings: Settings,
    listener: socket.socket,
    load: Load | None = None,
    on_listening: Callable[[], None] = lambda: None,
) -> None:
    """Serve loaded engines on a bound socket until a signal; see ``serve`` for how it ends.

    ``load`` loads the models that are added later; ``on_listening`` is called once requests can
    come.
    """
    allow_many()
    app = create_app(engines, settings, load)
    config = uvicorn.Config(
        app,
        http=BoundedProtocol,
        log_config=log_config(settings),
        log_level=settings.log_level,
        access_log=False,  # our own has ids
        root_path=settings.root_path,
        ssl_certfile=settings.ssl_certfile,
        ssl_keyfile=settings.ssl_keyfile,
        timeout_keep_alive=_KEEP_ALIVE_S,
        lifespan="off",
        ws="none",
    )
    _Server(config, app, settings, on_listening).run(sockets=[listener])


class _Server(uvicorn.Server):
    """uvicorn, but a signal drains the queues before the port closes, and is not raised again."""

    def __init__(
        self,
        config: uvicorn.Config,
        app: FastAPI,
        settings: Settings,
        on_listening: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._application = app
        app.state.stopping = False
        self._registry: Registry = app.state.registry
        self._metrics: Metrics = app.state.metrics
        self._settings = settings
        self._on_listening = on_listening
        self._loop: asyncio.AbstractEventLoop | None = None
        self._next_tick_s = math.inf  # when the event loop should come to it
        self._stopping = False
        self._draining: asyncio.Task[None] | None = None  # kept, or it could be collected
        self._drained = True
        self._lost = False
        self._registry.on_lost = self._end_for

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        except OSError as error:  # another process began to listen after this one had bound
            raise cannot_listen(self._settings, error) from error
        for listener in sockets or ():
            names = ", ".join(name for model in self._registry.models for name in model.names)
            log.info("running on %s, serving %s", url_of(listener, self._settings), names)
        # What was made until now stays: collections need not look at it again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_COLLECT_AFTER)
        self._on_listening()

    async def on_tick(self, counter: int) -> bool:
        now_s = time.perf_counter()
        self._registry.event_loop_is_behind(max(0.0, now_s - self._next_tick_s))
        self._next_tick_s = now_s + 1 / _TICKS_A_SECOND
        if counter % _TICKS_A_SECOND == 0:
            self._metrics.tell()
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._stopping or self._loop is None:
            _exit_now(128 + sig)
        self._stopping = True
        self._loop.call_soon_threadsafe(self._begin_to_drain)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        if not self._drained:
            # Threads that still compute would hold the process beyond its deadline.
            log.error("stopped with unfinished requests, after %g s", self._drain_timeout_s)
            _exit_now(1)
        if self._lost:  # closing sessions of a device that is not there could wait for ever
            _exit_now(1)

    @property
    def _drain_timeout_s(self) -> float:
        return self._settings.drain_timeout_s

    def _end_for(self, what: str) -> None:
        """Stop as for a signal, with status 1: whoever watches over the process starts another."""
        if self._stopping:
            return
        log.critical("%s; only another process can use it again: this one ends", what)
        self._lost = self._stopping = True
        self._begin_to_drain()

    def _begin_to_drain(self) -> None:
        self._application.state.stopping = True
        for connection in tuple(self.server_state.connections):
            if isinstance(connection, BoundedProtocol):
                connection.stop_reading()
        self._draining = asyncio.ensure_future(self._drain())

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self._drain_timeout_s
        log.info("stopping; requests in work get up to %g s", self._drain_timeout_s)
        try:
            self._drained = await self._registry.drain(self._drain_timeout_s)
        finally:
            self.should_exit = True  # before anything that could fail
            left_s = max(_LAST_REPLIES_S, math.ceil(deadline_s - loop.time()))
            self.config.timeout_graceful_shutdown = left_s


def _exit_now(code: int) -> NoReturn:
    os._exit(code)
