"""Object stores by address: s3://, gs:// and hdfs:// through pyarrow, all others through fsspec.

Knows addresses and bytes; knows nothing about jobs. Credentials come from where the libraries look
for them (environment, profiles, instance roles).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from poolc.errors import InputError, InvalidOption, MissingDependency
from poolc.runtime.bulk.formats import import_arrow

_ADDRESS = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]+)://")
_NATIVE = ("s3", "gs", "gcs", "hdfs", "viewfs")


@dataclass(frozen=True, slots=True)
class Remote:
    """A place in an object store: a ``pyarrow.fs.FileSystem`` and a path there."""

    url: str
    fs: Any
    path: str


def is_address(name: str) -> bool:
    """Return whether a name is an address like s3://bucket/key."""
    return _ADDRESS.match(name) is not None


def connect(url: str, purpose: str) -> Remote:
    """Return the file system of an address, and the path on it.

    Raises MissingDependency without pyarrow or the package of that kind of store, InvalidOption for
    a kind that is unknown.
    """
    arrow_fs = import_arrow("fs", purpose)
    match = _ADDRESS.match(url)
    scheme = match.group(1).lower() if match else ""
    try:
        if scheme in _NATIVE:
            fs, path = arrow_fs.FileSystem.from_uri(_with_endpoint(url, scheme))
            return Remote(url, fs, path)
        return _through_fsspec(url, arrow_fs)
    except OSError as error:
        raise InputError(f"cannot open {url}: {error}", param="inputs") from error
    except ValueError as error:  # pyarrow's ArrowInvalid and fsspec's unknown protocol
        raise InvalidOption(f"{url} is no address that can be opened: {error}") from error


def _through_fsspec(url: str, arrow_fs: Any) -> Remote:
    try:
        import fsspec
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f'{url} needs fsspec, which is not installed: pip install "poolc[bulk]"'
        ) from error
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except ImportError as error:  # the package of this kind of store, which fsspec names
        raise MissingDependency(f"{url}: {error}") from error
    return Remote(url, arrow_fs.PyFileSystem(arrow_fs.FSSpecHandler(fs)), path)


def _with_endpoint(url: str, scheme: str) -> str:
    """Add the endpoint that the AWS tools read from the environment, for stores that speak S3."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if scheme != "s3" or not endpoint or "endpoint_override=" in url:
        return url
    kind, _, host = endpoint.rstrip("/").rpartition("://")
    joint = "&" if "?" in url else "?"
    return f"{url}{joint}scheme={kind or 'https'}&endpoint_override={host}"


@contextmanager
def store_errors(url: str, verb: str, param: str) -> Iterator[None]:
    """Turn what a store's library raises into InputError with the address."""
    try:
        yield
    except (FileNotFoundError, OSError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"cannot {verb} {url}: {reason}", param=param) from error
