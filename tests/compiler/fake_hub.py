"""A stand-in for the Hugging Face hub on the loopback: what model_info and hf_hub_download ask for.

Status codes and ``X-Error-Code`` are those of the real hub; every request is kept in ``requests``.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

_INFO = re.compile(r"^/api/models/(?P<id>[^?]+?)(/revision/(?P<revision>[^?/]+))?(\?.*)?$")
_FILE = re.compile(r"^/(?P<id>.+?)/resolve/(?P<revision>[^/]+)/(?P<name>[^?]+)(\?.*)?$")


@dataclass(slots=True)
class Repository:
    """One model: its files by commit, and what each branch means."""

    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def push(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Make ``files`` the head of ``branch``; return the new commit."""
        digest = hashlib.sha1(json.dumps([sorted(files), len(self.commits)]).encode())
        commit = digest.hexdigest()
        self.commits[commit] = files
        self.branches[branch] = commit
        return commit

    def resolve(self, revision: str) -> str | None:
        """Return the commit of a branch or commit."""
        commit = self.branches.get(revision, revision)
        return commit if commit in self.commits else None


@dataclass(slots=True)
class Hub:
    """Repositories by id, and the requests that were made, as ``METHOD path``."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    def add(self, name: str, files: dict[str, bytes]) -> Repository:
        """Create a repository with one commit on main."""
        repository = self.repositories[name] = Repository()
        repository.push(files)
        return repository

    def fetched(self) -> set[str]:
        """Return the names of the files that were downloaded."""
        gets = (line.removeprefix("GET ") for line in self.requests if line.startswith("GET "))
        return {match["name"] for path in gets if (match := _FILE.match(path))}


def files_of(folder: Path) -> dict[str, bytes]:
    """Read a model folder as a repository's files."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@contextmanager
def serve() -> Iterator[Hub]:
    """Run a hub on a free port."""
    hub = Hub()

    class Handler(_Handler):
        _hub = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def stand_in(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make huggingface_hub, in this process, take what listens at ``url`` for the hub."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    _hub: Hub

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: ``Hub.requests`` is the log."""

    def _answer(self, *, body: bool) -> None:
        self._hub.requests.append(f"{self.command} {self.path}")
        # A file's address first: an id may not hold "resolve", but "api/models" could.
        if match := _FILE.match(self.path):
            self._file(match["id"], match["revision"], match["name"], body=body)
        elif match := _INFO.match(self.path):
            self._info(match["id"], match["revision"] or "main")
        else:
            self._refuse(404, "EntryNotFound")

    def _info(self, name: str, revision: str) -> None:
        repository = self._hub.repositories.get(name)
        if repository is None:
            return self._refuse(401, "RepoNotFound")
        commit = repository.resolve(revision)
        if commit is None:
            return self._refuse(404, "RevisionNotFound")
        files = repository.commits[commit]
        siblings = [{"rfilename": file, "size": len(data)} for file, data in files.items()]
        info = {"id": name, "modelId": name, "sha": commit, "siblings": siblings, "tags": []}
        return self._send(200, {"Content-Type": "application/json"}, json.dumps(info).encode())

    def _file(self, name: str, revision: str, file: str, *, body: bool) -> None:
        repository = self._hub.repositories.get(name)
        if repository is None:
            return self._refuse(401, "RepoNotFound")
        if repository.gated:
            return self._refuse(403, "GatedRepo")
        commit = repository.resolve(revision)
        data = repository.commits[commit].get(file) if commit else None
        if commit is None or data is None:
            return self._refuse(404, "EntryNotFound" if commit else "RevisionNotFound")
        etag = hashlib.sha256(data).hexdigest()
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        return self._send(200, headers, data, body=body)

    def _refuse(self, status: int, code: str) -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": f"{code} (stand-in)"}
        self._send(status, headers, b"")

    def _send(
        self, status: int, headers: dict[str, str], data: bytes, *, body: bool = True
    ) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)
