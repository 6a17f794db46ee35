"""Texts and tokens a second on the GPU, against Sentence Transformers on the same one.

Each system runs each workload once before it is timed, with the same shapes, and the rounds
alternate. Sentence Transformers gets its best batch size of a few, SDPA, half precision, and sorts
by length as it always does; both return vectors as arrays on the host.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu.compiling import Wanted
from benchmarks.gpu.shapes import LONG_TOKENS, Shape, Texts
from poolc.model_cache.artifact import Artifact, open_artifact
from poolc.runtime.backends.base import Backend
from poolc.runtime.backends.cuda import CudaBackend
from poolc.runtime.backends.tensorrt import TensorRTBackend
from poolc.runtime.engine import Engine
from poolc.spec import (
    ATTENTION_MASK,
    INPUT_IDS,
    MAIN_SET,
    SENTENCE_EMBEDDING,
    TOKEN_TYPE_IDS,
    Target,
)

Say = Callable[[str], None]
BATCH_SIZES = {"short": (128, 512, 2048), "mixed": (64, 256), "long": (32, 128)}
_ROUNDS = 3
_TYPES = {"fp16": "float16", "bf16": "bfloat16"}
_FULL = (32, LONG_TOKENS)  # texts, tokens: what the share of the peak is measured on


def matrix_peak(dtype: str) -> float:
    """Return FLOP/s of a large matrix product of random numbers, the median of ten."""
    import torch

    left, right = (
        torch.randn(8192, 8192, device="cuda", dtype=getattr(torch, _TYPES[dtype]))
        for _ in range(2)
    )
    return 2 * 8192**3 / _median(lambda: left @ right, 10)


@dataclass(frozen=True, slots=True)
class System:
    """A model's folder and an artifact of it."""

    shape: Shape
    folder: Path
    artifact: Path
    wanted: Wanted

    @property
    def name(self) -> str:
        """As lines call it."""
        return f"{self.shape.title} {self.wanted.name}"


def peer_precision(precision: str) -> str:
    """Return what Sentence Transformers is run in: fp8 is compared with fp16."""
    return precision if precision in _TYPES else "fp16"


def measure(system: System, texts: Texts, peak: float, say: Say) -> dict[str, Any]:
    """Measure one model in one precision; every figure is said as it is made."""
    import torch

    shape, artifact, precision = system.shape, system.artifact, system.wanted.precision
    peer = _Peer(system.folder, peer_precision(precision))
    engine = Engine(open_artifact(artifact))
    found: dict[str, Any] = {
        "target": system.wanted.target,
        "precision": precision,
        "workloads": {},
    }
    for name, sizes in BATCH_SIZES.items():
        result = _compared(engine, peer, texts.of(name), sizes)
        found["workloads"][name] = result
        say(
            f"{system.name} {name}: {result['ratio']:.2f}x Sentence Transformers, "
            f"{result['poolc']:,.0f} against {result['sentence_transformers']:,.0f} texts/s "
            f"(batches of {result['batch_size']}), without tokenising {result['ratio_tokens']:.2f}x"
            f", worst cosine between them {result['worst_cosine']:.6f}"
        )
    found["full"] = _full(shape, engine, peer, peak)
    say(
        f"{system.name}, {_FULL[0]} texts of {_FULL[1]} tokens: "
        f"{100 * found['full']['share']:.0f} % of the matrix peak, Sentence Transformers' forward "
        f"{100 * found['full']['peer_share']:.0f} %"
    )
    found["latency"] = _latency(engine, peer, texts.short)
    shown = ", ".join(f"{name} {ms:.2f} ms" for name, ms in found["latency"].items())
    say(f"{system.name}, a lone query: {shown}")
    engine.close()
    del peer
    torch.cuda.empty_cache()
    return found


class _Peer:
    def __init__(self, folder: Path, precision: str) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        self._torch = torch
        self.model = SentenceTransformer(
            str(folder),
            device="cuda",
            model_kwargs={
                "dtype": getattr(torch, _TYPES[precision]),
                "attn_implementation": "sdpa",
            },
        )

    def embed(self, texts: Sequence[str], batch_size: int) -> Any:
        return self.model.encode(list(texts), batch_size=batch_size, show_progress_bar=False)

    def tokenized(self, texts: Sequence[str], batch_size: int) -> list[Any]:
        """Tokenise batches sorted by length, as ``encode`` sorts them."""
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
        tokenizer: Any = self.model.tokenizer
        return [
            tokenizer(
                [texts[i] for i in batch],
                padding=True,
                truncation=True,
                max_length=LONG_TOKENS,
                return_tensors="pt",
            )
            for batch in batches
        ]

    def forward(self, batches: Sequence[Any]) -> list[Any]:
        """Run tokenised batches and fetch their vectors."""
        with self._torch.inference_mode():
            return [
                self.model({name: value.cuda() for name, value in batch.items()})[
                    "sentence_embedding"
                ].cpu()
                for batch in batches
            ]


def _compared(
    engine: Engine, peer: _Peer, texts: list[str], sizes: Sequence[int]
) -> dict[str, Any]:
    speeds = {size: _rate(partial(peer.embed, texts, size), len(texts)) for size in sizes}
    best = max(speeds, key=lambda size: speeds[size])
    ids = [sequence.ids for sequence in _sequences(engine, texts)]
    batches = peer.tokenized(texts, best)
    ours, theirs = engine.embed(texts, truncate=True), peer.embed(texts, best)
    engine.embed(ids)
    peer.forward(batches)
    rounds: dict[str, list[float]] = {name: [] for name in ("poolc", "peer", "ids", "forward")}
    for _ in range(_ROUNDS):
        for name, run in (
            ("poolc", lambda: engine.embed(texts, truncate=True)),
            ("peer", lambda: peer.embed(texts, best)),
            ("ids", lambda: engine.embed(ids)),
            ("forward", lambda: peer.forward(batches)),
        ):
            rounds[name].append(_seconds(run))
    medians = {name: statistics.median(values) for name, values in rounds.items()}
    cosines = (ours * theirs).sum(axis=1) / np.linalg.norm(theirs.astype(np.float64), axis=1)
    return {
        "texts": len(texts),
        "tokens": sum(map(len, ids)),
        "batch_size": best,
        "poolc": len(texts) / medians["poolc"],
        "sentence_transformers": len(texts) / medians["peer"],
        "ratio": medians["peer"] / medians["poolc"],
        "poolc_tokens_per_s": sum(map(len, ids)) / medians["ids"],
        "ratio_tokens": medians["forward"] / medians["ids"],
        "worst_cosine": float(cosines.min()),
        "seconds": rounds,
    }


def _full(shape: Shape, engine: Engine, peer: _Peer, peak: float) -> dict[str, float]:
    """Time one full micro-batch of each: what the kernels make of the GPU."""
    rows, tokens = _FULL
    ids = np.random.default_rng(1).integers(1000, 8000, _FULL)
    feeds = {INPUT_IDS: ids, ATTENTION_MASK: np.ones(_FULL, np.int64)}
    if TOKEN_TYPE_IDS in engine.spec.inputs:
        feeds[TOKEN_TYPE_IDS] = np.zeros(_FULL, np.int64)
    ours = _median(lambda: engine._backend.run(MAIN_SET, feeds), 10)
    import torch

    batch = {name: torch.from_numpy(value) for name, value in feeds.items()}
    theirs = _median(lambda: peer.forward([batch]), 10)
    flops = shape.flops([tokens] * rows)
    return {
        "ms": 1000 * ours,
        "share": flops / ours / peak,
        "peer_ms": 1000 * theirs,
        "peer_share": flops / theirs / peak,
    }


def _latency(engine: Engine, peer: _Peer, queries: list[str]) -> dict[str, float]:
    """Return the median milliseconds of a query by itself: poolc's with recorded kernels, for cuda
    also without, and the peer's.
    """
    found = {"graphs": _p50_ms(engine.embed, queries[:300])}
    if engine.artifact.manifest.target is Target.CUDA:
        plain = Engine(open_artifact(engine.artifact.path))
        plain._backend.close()
        plain._backend = CudaBackend(plain.artifact, graphs=False)
        found["plain"] = _p50_ms(plain.embed, queries[:300])
        plain.close()
    found["peer"] = _p50_ms(lambda text: peer.embed([text], 1), queries[:100])
    return found


def stress(artifact: Path, say: Say) -> dict[str, Any]:
    """Run recorded and unrecorded micro-batches from four threads; return the worst difference.

    Engines are compared with themselves, one micro-batch at a time.
    """
    found = open_artifact(artifact)
    backend, plain = (_backend(found, graphs=graphs) for graphs in (True, False))
    lengths = [[7], [12] * 3, [60] * 16, [16] * 900, [512] * 24, [*range(3, 300)], [200] * 8]
    cases = [random_feeds(found, one, seed) for seed, one in enumerate(lengths)]
    wanted = [plain.run(MAIN_SET, case)[SENTENCE_EMBEDDING] for case in cases]
    worst, failures, lock = [0.0], list[str](), threading.Lock()

    def work(seed: int) -> None:
        draw = np.random.default_rng(seed)
        for _ in range(60):
            i = int(draw.integers(len(cases)))
            try:
                made = backend.run(MAIN_SET, cases[i])[SENTENCE_EMBEDDING]
            except Exception as error:
                failures.append(f"{type(error).__name__}: {error}"[:300])
                return
            with lock:
                worst[0] = max(worst[0], float(np.abs(made - wanted[i]).max()))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    backend.close()
    plain.close()
    say(f"240 runs on four threads, with and without graphs: worst difference {worst[0]:.1e}")
    for failure in failures:
        say(f"FAILED: {failure}")
    return {"worst_difference": worst[0], "failures": failures}


def _backend(artifact: Artifact, *, graphs: bool) -> Backend:
    if artifact.manifest.target is Target.CUDA:
        return CudaBackend(artifact, graphs=graphs)
    return TensorRTBackend(artifact)


def random_feeds(artifact: Artifact, lengths: list[int], seed: int) -> dict[str, Any]:
    """Return a micro-batch of random tokens, int64 [texts, most tokens] each."""
    shape = (len(lengths), max(lengths))
    mask = (np.arange(shape[1]) < np.array(lengths)[:, None]).astype(np.int64)
    ids = np.random.default_rng(seed).integers(1000, 8000, shape) * mask
    inputs = artifact.manifest.spec.inputs
    feeds = {INPUT_IDS: ids, ATTENTION_MASK: mask, TOKEN_TYPE_IDS: np.zeros(shape, np.int64)}
    return {name: feeds[name] for name in inputs}


def _sequences(engine: Engine, texts: list[str]) -> list[Any]:
    from poolc.runtime.request import Params
    from poolc.spec import Task

    return engine.prepare(Task.EMBED, texts, Params(truncate=True)).sequences


def _rate(run: Callable[[], Any], count: int) -> float:
    run()
    return count / _seconds(run)


def _seconds(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _median(run: Callable[[], Any], rounds: int) -> float:
    import torch

    times = []
    for _ in range(rounds + 3):
        torch.cuda.synchronize()
        started = time.perf_counter()
        run()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times[3:])


def _p50_ms(run: Callable[[str], Any], texts: list[str]) -> float:
    for text in texts[:20]:
        run(text)
    return 1000 * statistics.median(_seconds(partial(run, text)) for text in texts)
