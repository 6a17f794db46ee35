"""Sockets that a server listens on, and what they are called. Knows nothing about requests."""

from __future__ import annotations

import socket
from typing import Any

from poolc.errors import InvalidOption
from poolc.serve.settings import Settings


def bind(settings: Settings, *, shared: bool = False) -> socket.socket:
    """Return a socket bound to ``settings``' address, not yet listening. Raises InvalidOption.

    ``shared``: other sockets that ask for it may be bound to the same port; the kernel deals
    connections to those that listen (SO_REUSEPORT).
    """
    listener = None
    try:
        family, kind, protocol, address = _address(settings)
        listener = socket.socket(family, kind, protocol)
        if family != socket.AF_UNIX:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family != socket.AF_UNIX and shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
    except OSError as error:
        if listener is not None:
            listener.close()
        raise cannot_listen(settings, error) from error
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


def cannot_listen(settings: Settings, error: OSError) -> InvalidOption:
    """Return the error that says why nothing can listen there, and what to do."""
    reason = error.strerror or error
    if settings.uds is not None:
        message = f"cannot listen on {settings.uds}: {reason}; remove it, or choose another --uds"
        return InvalidOption(message, param="uds")
    return InvalidOption(
        f"cannot listen on {settings.host}, port {settings.port}: {reason}; "
        "choose another --host or --port",
        param="port",
    )


def url_of(listener: socket.socket, settings: Settings) -> str:
    """Return where clients reach a socket."""
    if settings.uds is not None:
        return f"unix:{settings.uds}"
    scheme = "https" if settings.ssl_certfile else "http"
    host, port = listener.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
