"""Replicas of Ray Serve: real clients, two replicas, and an update under load."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest

from poolc.runtime.engine import Engine
from tests.clients.environments import ROOT
from tests.cluster.environment import running
from tests.runtime.bulk.conftest import texts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


class Cluster:
    """A cluster that serves on a port; ``deploy`` changes what it serves."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self._process = process
        self.url = url

    def deploy(self, **args: object) -> int:
        """Deploy, again or for the first time; return how many replicas run then."""
        return self._told(f"deploy {json.dumps(args)}")

    def check(self, path: Path) -> None:
        """Check that Ray Serve takes a file as its config."""
        self._told(f"check {path}")

    def _told(self, line: str) -> int:
        said, told = self._process.stdout, self._process.stdin
        assert said is not None and told is not None
        told.write(f"{line}\n")
        told.flush()
        for line in said:
            if line.startswith("deployed "):
                return int(line.split()[1])
        assert self._process.stderr is not None
        raise AssertionError(self._process.stderr.read()[-4000:])


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with running("serving", str(port)) as process:
        yield Cluster(process, f"http://127.0.0.1:{port}")


def test_serving(cluster: Cluster, tiny_embedder: Path, embedder: Engine) -> None:
    served = {"models": [str(tiny_embedder)], "served_model_names": ["tiny"]}
    assert cluster.deploy(**served) == 1
    expected = embedder.embed(texts(9), prompt="")
    client = openai.OpenAI(base_url=f"{cluster.url}/v1", api_key="-", max_retries=0)
    reply = client.embeddings.create(model="tiny", input=texts(9))
    found = np.array([one.embedding for one in reply.data])
    np.testing.assert_allclose(found, expected, atol=1e-6)
    check_other_dialects(cluster.url, expected)
    with asking(cluster.url) as asked:
        assert cluster.deploy(**served, deployment={"num_replicas": 2}) == 2
        new = {"models": [str(tiny_embedder)], "served_model_names": ["tiny", "again"]}
        assert cluster.deploy(**new, deployment={"num_replicas": 2}) == 2
        before = len(asked.vectors)
        asked.wait_for(before + 20)
    assert not asked.failures
    for vectors in asked.vectors:
        np.testing.assert_allclose(vectors, embedder.embed(texts(2), prompt=""), atol=1e-6)
    names = [one.id for one in client.models.list().data]
    assert names == ["tiny", "again"]


def test_config(cluster: Cluster) -> None:
    cluster.check(ROOT / "deploy" / "ray" / "serve.yaml")


def check_other_dialects(
    url: str, expected: np.ndarray[tuple[int, int], np.dtype[np.float32]]
) -> None:
    body = {"inputs": texts(9)}
    tei = httpx.post(f"{url}/embed", json=body)
    np.testing.assert_allclose(tei.json(), expected, atol=1e-6)
    scores = httpx.post(f"{url}/score", json={"text_1": "a", "text_2": ["b", "c"]}).json()
    assert [one["index"] for one in scores["data"]] == [0, 1]
    assert httpx.get(f"{url}/ready").json() == {"status": "ready"}
    refused = httpx.post(f"{url}/v1/embeddings", json={"input": "", "model": "tiny"})
    assert refused.status_code == 400
    assert "empty" in refused.json()["error"]["message"]


class asking:
    """Ask for vectors on two threads, over and over, until the context ends."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/v1/embeddings"
        self.vectors: list[list[list[float]]] = []
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._more = threading.Condition()
        self._threads = [threading.Thread(target=self._ask) for _ in range(2)]

    def __enter__(self) -> asking:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, count: int) -> None:
        """Wait until so many requests were answered."""
        with self._more:
            assert self._more.wait_for(lambda: len(self.vectors) + len(self.failures) >= count, 60)

    def _ask(self) -> None:
        body = {"model": "tiny", "input": texts(2)}
        with httpx.Client(timeout=60) as client:
            while not self._stop.is_set():
                try:
                    reply = client.post(self._url, json=body).raise_for_status()
                    data = reply.json()["data"]
                    found = [one["embedding"] for one in data]
                except httpx.HTTPError as error:
                    self.failures.append(f"{error!r}")
                else:
                    self.vectors.append(found)
                with self._more:
                    self._more.notify_all()
