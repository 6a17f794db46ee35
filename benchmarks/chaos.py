"""Clients that leave in the middle, and a server that is stopped and started again meanwhile.

    python -m benchmarks.chaos [--artifact DIR] [--requests 200000] [--clients 32] [--stops 20]

Every text has one vector, computed beforehand without a server. Every request has to be answered
with the vectors of its own texts, or cleanly refused: 429, 503, or a connection that is closed or
refused while the server stops. Anything else ends the run. Memory and descriptors of each server's
life are told; a client that leaves must not leave anything behind.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import itertools
import json
import os
import random
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
_REFUSED = frozenset({429, 503})
_SAME = 2e-6  # alone against batched


@dataclass(slots=True)
class Found:
    """What became of all requests, and what each life of the server held at its start and end."""

    outcomes: Counter[str] = field(default_factory=Counter)
    lives: list[dict[str, float]] = field(default_factory=list)
    exits: list[int] = field(default_factory=list)
    worst: float = 0.0  # difference of any number
    wrong: list[str] = field(default_factory=list)


def main() -> int:
    """Run and print; the exit code is 1 where anything was wrong."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument(
        "--artifact", type=Path, help="MiniLM, compiled on first use, if not given"
    )
    options.add_argument("--requests", type=int, default=200_000)
    options.add_argument("--clients", type=int, default=32)
    options.add_argument("--stops", type=int, default=20)
    options.add_argument("--json", type=Path)
    asked = options.parse_args()
    started = time.perf_counter()
    found = run(asked.artifact, asked.requests, asked.clients, asked.stops)
    told = {
        "requests": asked.requests,
        "seconds": time.perf_counter() - started,
        "outcomes": dict(found.outcomes),
        "worst_difference": found.worst,
        "wrong": found.wrong,
        "exits": found.exits,
        "lives": found.lives,
    }
    print(json.dumps({**told, "lives": told["lives"][:3]}, indent=1))
    if asked.json is not None:
        asked.json.write_text(json.dumps({"machine": machine(), **told}, indent=1) + "\n")
    return int(bool(found.wrong) or any(found.exits))


def run(artifact: Path | None, requests: int, clients: int, stops: int) -> Found:
    """Send ``requests`` while the server is stopped ``stops`` times."""
    if artifact is None:
        from benchmarks.options import model_or_default

        artifact = poolc.compile(model_or_default(None)).path
    texts = made_texts(_TEXTS)
    engine = poolc.load(artifact)
    vectors = np.asarray(engine.embed(texts, prompt=""), np.float32)
    engine.close()
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
        self._requests, self._clients, self._stops = requests, clients, stops
        self._draw = random.Random(SEED)
        self._sent = itertools.count()
        self._up = asyncio.Event()
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
            chosen = self._draw.sample(range(_TEXTS), self._draw.randint(1, _MOST_TEXTS))
            ask = asyncio.ensure_future(self._ask(session, chosen))
            if self._draw.random() < _LEAVES:
                await asyncio.sleep(self._draw.expovariate(200))
                ask.cancel()
            try:
                outcome = await ask
            except asyncio.CancelledError:
                outcome = "left"
            except aiohttp.ClientError:
                outcome = "closed" if not self._up.is_set() else "closed while up"
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
        each = max(1, self._requests // (self._stops + 1))
        for life in itertools.count(1):
            process, log = self._start()
            await self._wait(process)
            before = _held(process.pid)
            self._up.set()
            until = each * life if life <= self._stops else self._requests
            while sum(self.found.outcomes.values()) < until and not self._done:
                await asyncio.sleep(0.02)
            after = _held(process.pid)
            self._up.clear()
            process.send_signal(signal.SIGTERM)
            self.found.exits.append(await asyncio.to_thread(process.wait, _START_TIMEOUT_S))
            log.close()
            self.found.lives.append(
                {**{f"{k}_before": v for k, v in before.items()},
                 **{f"{k}_after": v for k, v in after.items()}}
            )  # fmt: skip
            if self._done or sum(self.found.outcomes.values()) >= self._requests:
                self._up.set()  # nobody waits for a server that does not come
                return

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
    resident = int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    return {"descriptors": len(os.listdir(f"/proc/{pid}/fd")), "resident_mb": round(resident, 1)}


if __name__ == "__main__":
    sys.exit(main())
