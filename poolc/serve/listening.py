"""Sockets that a server listens on, and what they are called. Knows nothing about requests."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from poolc.errors import InvalidOption
from poolc.serve.settings import Settings


def bind(settings: Settings, *, shared: bool = False) -> socket.socket:
    """Return a socket bound to ``settings``' address, not yet listening. Raises InvalidOption.

    A Unix socket's file that a server left behind which is no more is taken away first.
    ``shared``: other sockets that ask for it may be bound to the same port; the kernel deals
    connections to those that listen (SO_REUSEPORT).
    """
    listener = None
    try:
        family, kind, protocol, address = _address(settings)
        listener = socket.socket(family, kind, protocol)
        if settings.uds is not None:
            _take_away_what_is_left(settings.uds)
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


@contextmanager
def bound(settings: Settings) -> Iterator[Taken]:
    """Bind as ``bind`` does; in the end the socket is closed and its file taken away."""
    with bind(settings) as listener:
        taken = Taken(listener, settings, _identity(settings.uds))
        try:
            yield taken
        finally:
            # The socket may have been closed long since: the file can be another server's by now.
            if settings.uds is not None and taken.is_ours():
                with suppress(OSError):
                    os.unlink(settings.uds)


class Taken(NamedTuple):
    """An address that this process has taken."""

    listener: socket.socket
    settings: Settings
    file: tuple[int, ...]  # of a Unix socket: which one it is

    def is_ours(self) -> bool:
        """Return whether the file is the one that was made here."""
        return _identity(self.settings.uds) == self.file

    def check_ours(self) -> None:
        """Raise InvalidOption where the file went while nothing listened yet."""
        if not self.is_ours():
            raise InvalidOption(
                f"{self.settings.uds} is not what it was: another server was started on it, or it "
                "was removed; choose another --uds",
                param="uds",
            )


def _identity(file: str | None) -> tuple[int, ...]:
    if file is not None:
        with suppress(OSError):
            found = os.lstat(file)
            # The number of a file that is gone may be given to the next one.
            return found.st_dev, found.st_ino, found.st_mtime_ns
    return ()


def _take_away_what_is_left(file: str) -> None:
    """Remove a socket's file where nobody listens. Raises OSError, also where somebody does."""
    try:
        mode = os.lstat(file).st_mode
    except FileNotFoundError:
        folder = Path(file).parent
        if not folder.is_dir():
            raise FileNotFoundError(errno.ENOENT, f"there is no folder {folder}") from None
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, "it is there, and no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a server whose queue is full is one too
        found = probe.connect_ex(file)
    if found == errno.ECONNREFUSED:
        os.unlink(file)
    elif found in (0, errno.EAGAIN):
        raise OSError(errno.EADDRINUSE, "a server listens there already")


def cannot_listen(settings: Settings, error: OSError) -> InvalidOption:
    """Return the error that says why nothing can listen there, and what to do."""
    reason = error.strerror or error
    if settings.uds is not None:
        message = f"cannot listen on {settings.uds}: {reason}; choose another --uds"
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
