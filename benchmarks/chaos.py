"""Clients that leave in the middle, and a server that is stopped and started again meanwhile.

    python -m benchmarks.chaos [--artifact DIR] [--requests 200000] [--clients 32] [--stops 20]

Every text has one vector, computed beforehand without a server, and no two of them are alike. Every
request has to be answered with the vectors of its own texts, or cleanly refused: 429, 503, or a
connection that is closed or refused while the server stops. Clients go on asking for a moment after
SIGTERM, which comes at random. Anything else ends the run. A client that leaves must not leave
anything behind: descriptors at the end of each of the server's lives are those of its start and of
the clients', and its memory grows by no more than MOST_GROWTH_MB after a quarter of the requests.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import numpy.typing as npt

import poolc
from benchmarks.environments import ROOT
from benchmarks.options import machine
from benchmarks.resident import free_port
from poolc.bench.asks import SEED, made_texts

_START_TIMEOUT_S = 60.0
_TEXTS = 400
_LEAVES = 0.2  # share of the requests whose client does not wait for the answer
_MOST_TEXTS = 12
_MEAN_MORE_TEXTS = 1.0  # behind the first of a request
_GOES_ON_S = 0.1  # at most, after SIGTERM
MOST_GROWTH_MB = 48.0
_NOTED, _MOST_NOTED = re.compile("WARNING|ERROR|Traceback"), 5  # lines, of each life
_LONG_LIFE = 4000  # requests; in a shorter one the model still warms up
_SPARE_DESCRIPTORS = 8
_REFUSED = frozenset({429, 503})
_SAME = 2e-6  # alone against batched
_ALIKE = 1e-3  # two texts whose vectors are nearer could not be told apart


@dataclass(slots=True)
class Found:
    """What became of all requests, and what each life of the server held at its start and end."""

    outcomes: Counter[str] = field(default_factory=Counter)
    lives: list[dict[str, float]] = field(default_factory=list)
    exits: list[int] = field(default_factory=list)
    worst: float = 0.0  # difference of any number
    wrong: list[str] = field(default_factory=list)
    noted: list[str] = field(default_factory=list)  # warnings and errors of the server's log

    def left_behind(self, clients: int) -> list[str]:
        """Return what a life of the server held at its end that it had no use for."""
        said = []
        for number, life in enumerate(self.lives, 1):
            most = life["descriptors_before"] + clients + _SPARE_DESCRIPTORS
            if life["descriptors_after"] > most:
                said.append(f"life {number}: {life['descriptors_after']:.0f} descriptors")
            grown = life["resident_mb_after"] - life["resident_mb_warm"]
            if life["requests"] >= _LONG_LIFE and grown > MOST_GROWTH_MB:
                said.append(f"life {number}: {grown:.0f} MB more than at its first quarter")
        return said


def main() -> int:
    """Run and print; the exit code is 1 where anything was wrong."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--artifact", type=Path, help="MiniLM, compiled on first use, by default")
    options.add_argument("--requests", type=int, default=200_000)
    options.add_argument("--clients", type=int, default=32)
    options.add_argument("--stops", type=int, default=20)
    options.add_argument("--json", type=Path)
    asked = options.parse_args()
    started = time.perf_counter()
    found = run(asked.artifact, asked.requests, asked.clients, asked.stops)
    left = found.left_behind(asked.clients)
    told = {
        "requests": asked.requests,
        "seconds": time.perf_counter() - started,
        "outcomes": dict(found.outcomes),
        "worst_difference": found.worst,
        "wrong": found.wrong,
        "left_behind": left,
        "noted": found.noted,
        "exits": found.exits,
        "lives": found.lives,
    }
    print(json.dumps({**told, "lives": told["lives"][:3]}, indent=1))
    if asked.json is not None:
        asked.json.write_text(json.dumps({"machine": machine(), **told}, indent=1) + "\n")
    return int(bool(found.wrong or left) or any(found.exits))


def run(artifact: Path | None, requests: int, clients: int, stops: int) -> Found:
    """Send ``requests`` while the server is stopped ``stops`` times."""
    if artifact is None:
        from benchmarks.options import model_or_default

        artifact = poolc.compile(model_or_default(None)).path
    texts = made_texts(_TEXTS)
    engine = poolc.load(artifact)
    vectors = np.asarray(engine.embed(texts, prompt=""), np.float32)
    engine.close()
    apart = np.abs(vectors[:, None, :] - vectors[None, :, :]).max(axis=2) + np.eye(len(texts))
    if apart.min() < _ALIKE:
        raise RuntimeError(f"two texts have vectors that differ by {apart.min():.1g} only")
    return asyncio.run(_Chaos(artifact, texts, vectors, requests, clients, stops).run())


class _Chaos:
    def __init__(
        self,
        artifact: Path,
        texts: list[str],
        vectors: npt.NDArray[np.float32],
        requests: int,
        clients: int,
        stops: int,
    ) -> None:
        self._artifact, self._texts, self._vectors = artifact, texts, vectors
        self._requests, self._clients = requests, clients
        self._draw = random.Random(SEED)
        # After how many requests each life ends.
        self._ends = [*sorted(self._draw.sample(range(1, requests), stops)), requests]
        self._sent = itertools.count()
        self._up = asyncio.Event()  # clients ask
        self._steady = 0  # which life it is, of a server that nobody stops; 0 while one does
        self._done = False
        self._port = free_port()
        self.found = Found()

    async def run(self) -> Found:
        """Drive clients and the server until every request has been sent."""
        life = asyncio.ensure_future(self._live())
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            await asyncio.gather(*(self._client(session) for _ in range(self._clients)))
        self._done = True
        await life
        return self.found

    async def _client(self, session: aiohttp.ClientSession) -> None:
        while (number := next(self._sent)) < self._requests and not self.found.wrong:
            await self._up.wait()
            count = min(_MOST_TEXTS, 1 + int(self._draw.expovariate(1 / _MEAN_MORE_TEXTS)))
            chosen, life = self._draw.sample(range(_TEXTS), count), self._steady
            ask = asyncio.ensure_future(self._ask(session, chosen))
            if self._draw.random() < _LEAVES:
                await asyncio.sleep(self._draw.expovariate(200))
                ask.cancel()
            try:
                outcome = await ask
            except asyncio.CancelledError:
                outcome = "left"
            except aiohttp.ClientError as error:
                steady = life and life == self._steady
                outcome = f"wrong: {error!r} while nobody stops it" if steady else "closed"
                await asyncio.sleep(0.01)
            self.found.outcomes[outcome] += 1
            if outcome.startswith("wrong"):
                self.found.wrong.append(f"request {number}: {outcome}")

    async def _ask(self, session: aiohttp.ClientSession, chosen: list[int]) -> str:
        body = {"input": [self._texts[i] for i in chosen], "encoding_format": "base64"}
        url = f"http://127.0.0.1:{self._port}/v1/embeddings"
        async with session.post(url, json=body) as response:
            content = await response.read()
        if response.status in _REFUSED:
            return str(response.status)
        if response.status != 200:
            return f"wrong: {response.status} {content[:200]!r}"
        data = json.loads(content)["data"]
        rows = np.stack([np.frombuffer(base64.b64decode(one["embedding"]), "<f4") for one in data])
        if rows.shape != (len(chosen), self._vectors.shape[1]):
            return f"wrong: {rows.shape} for {len(chosen)} texts"
        difference = float(np.abs(rows - self._vectors[chosen]).max())
        self.found.worst = max(self.found.worst, difference)
        return "answered" if difference <= _SAME else f"wrong: off by {difference:.2g}"

    async def _live(self) -> None:
        """Start the server, stop it, and again; the last life ends with the last request."""
        began = 0
        for life, end in enumerate(self._ends, 1):
            process, log = self._start()
            await self._wait(process)
            told = {f"{name}_before": held for name, held in _held(process.pid).items()}
            self._steady = life
            self._up.set()
            await self._asked(began + (end - began) // 4)
            told |= {f"{name}_warm": held for name, held in _held(process.pid).items()}
            await self._asked(end)
            told |= {f"{name}_after": held for name, held in _held(process.pid).items()}
            self._steady = 0
            process.send_signal(signal.SIGTERM)
            await asyncio.sleep(self._draw.uniform(0, _GOES_ON_S))
            self._up.clear()
            self.found.exits.append(await asyncio.to_thread(process.wait, _START_TIMEOUT_S))
            log.seek(0)
            lines = log.read().decode(errors="replace").splitlines()
            log.close()
            noted = [line for line in lines if _NOTED.search(line)]
            self.found.noted += [f"life {life}: {line}" for line in noted[:_MOST_NOTED]]
            self.found.lives.append({**told, "requests": float(end - began)})
            began = end
            if self._done:
                break
        self._up.set()  # nobody waits for a server that does not come

    async def _asked(self, count: int) -> None:
        """Wait until so many requests have ended, or there are no more."""
        while sum(self.found.outcomes.values()) < count and not self._done:
            await asyncio.sleep(0.02)

    def _start(self) -> tuple[subprocess.Popen[bytes], Any]:
        log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with its server
        command = [sys.executable, "-m", "poolc", "serve", str(self._artifact), "--no-access-log"]
        command += ["--port", str(self._port), "--max-queued-tokens", "3000"]
        return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log), log

    async def _wait(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        url = f"http://127.0.0.1:{self._port}/ready"
        async with aiohttp.ClientSession() as session:
            while time.monotonic() < deadline and process.poll() is None:
                try:
                    async with session.get(url) as response:
                        if response.status == 200:
                            return
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.05)
        raise RuntimeError(f"poolc serve did not start (exit code {process.poll()})")


def _held(pid: int) -> dict[str, float]:
    """Return what a process holds: descriptors, and resident MB."""
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    page = os.sysconf("SC_PAGE_SIZE") / 1e6
    resident, shared = (int(field) * page for field in fields[1:3])
    return {
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
        "resident_mb": round(resident, 1),
        "shared_mb": round(shared, 1),  # of it: pages of files, which weights are
    }


if __name__ == "__main__":
    sys.exit(main())
