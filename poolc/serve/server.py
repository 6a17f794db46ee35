"""The server's process: bind, load, run, and stop well. Knows signals and sockets, no requests.

The first SIGTERM or SIGINT stops admission (503, ``/ready`` too) while the port stays open,
finishes what was let in, then closes. A second one ends the process at once.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
from collections.abc import Mapping, Sequence
from functools import partial
from types import FrameType
from typing import Any, NoReturn

import uvicorn

from poolc import api
from poolc.errors import InvalidOption
from poolc.runtime.engine import Engine
from poolc.serve.app import create_app
from poolc.serve.logs import log_config
from poolc.serve.registry import Registry, check_names
from poolc.serve.routers.admin import Load
from poolc.serve.settings import Settings

log = logging.getLogger("poolc.serve")

# Longer than clients keep idle connections, so that it is never the server who closes one just as
# a request is sent on it.
_KEEP_ALIVE_S = 75
# What replies that are ready get to leave, however little of the drain's time is left.
_LAST_REPLIES_S = 1


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
    status 1, a second signal with 128 and its number.

    Raises InvalidOption for names that do not fit the models or an address that cannot be listened
    on, and as ``poolc.load`` does.
    """
    models = list(dict.fromkeys(models))
    check_names(models, settings.served_model_names)
    with bind(settings) as listener:
        engines = {m: api.load(m, on_event=on_event, **options) for m in models}
        load = partial(api.load, on_event=on_event, **options)
        try:
            run(engines, settings, listener, load)
        finally:
            for engine in engines.values():
                engine.close()


def bind(settings: Settings) -> socket.socket:
    """Return a socket bound to ``settings``' address, not yet listening. Raises InvalidOption."""
    listener = None
    try:
        family, kind, protocol, address = _address(settings)
        listener = socket.socket(family, kind, protocol)
        if family != socket.AF_UNIX:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        if listener is not None:
            listener.close()
        raise _cannot_listen(settings, error) from error
    return listener


def _address(settings: Settings) -> tuple[int, int, int, Any]:
    if settings.uds is not None:
        return socket.AF_UNIX, socket.SOCK_STREAM, 0, settings.uds
    found = socket.getaddrinfo(
        settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    # A name that has both families is asked for as 127.0.0.1 more often than as ::1.
    family, kind, protocol, _, address = min(found, key=lambda f: f[0] != socket.AF_INET)
    return family, kind, protocol, address


def run(
    engines: Mapping[str, Engine],
    settings: Settings,
    listener: socket.socket,
    load: Load | None = None,
) -> None:
    """Serve loaded engines on a bound socket until a signal; see ``serve`` for how it ends.

    ``load`` loads the models that are added later.
    """
    app = create_app(engines, settings, load)
    config = uvicorn.Config(
        app,
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
    _Server(config, app.state.registry, settings).run(sockets=[listener])


class _Server(uvicorn.Server):
    """uvicorn, but a signal drains the queues before the port closes, and is not raised again."""

    def __init__(self, config: uvicorn.Config, registry: Registry, settings: Settings) -> None:
        super().__init__(config)
        self._registry = registry
        self._settings = settings
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = False
        self._draining: asyncio.Task[None] | None = None  # kept, or it could be collected
        self._drained = True

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        except OSError as error:  # another process began to listen after this one had bound
            raise _cannot_listen(self._settings, error) from error
        for listener in sockets or ():
            names = ", ".join(name for model in self._registry.models for name in model.names)
            log.info("running on %s, serving %s", _url(listener, self._settings), names)

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

    @property
    def _drain_timeout_s(self) -> float:
        return self._settings.drain_timeout_s

    def _begin_to_drain(self) -> None:
        self._draining = asyncio.ensure_future(self._drain())

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self._drain_timeout_s
        log.info("stopping; requests in work get up to %g s", self._drain_timeout_s)
        try:
            self._drained = await self._registry.drain(self._drain_timeout_s)
        finally:
            left_s = max(_LAST_REPLIES_S, math.ceil(deadline_s - loop.time()))
            self.config.timeout_graceful_shutdown = left_s
            self.should_exit = True


def _exit_now(code: int) -> NoReturn:
    os._exit(code)


def _cannot_listen(settings: Settings, error: OSError) -> InvalidOption:
    reason = error.strerror or error
    if settings.uds is not None:
        message = f"cannot listen on {settings.uds}: {reason}; remove it, or choose another --uds"
        return InvalidOption(message, param="uds")
    return InvalidOption(
        f"cannot listen on {settings.host}, port {settings.port}: {reason}; "
        "choose another --host or --port",
        param="port",
    )


def _url(listener: socket.socket, settings: Settings) -> str:
    if settings.uds is not None:
        return f"unix:{settings.uds}"
    scheme = "https" if settings.ssl_certfile else "http"
    host, port = listener.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
