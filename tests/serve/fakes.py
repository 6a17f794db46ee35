"""An engine whose model is arithmetic, and that runs and fails when a test says so."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import cast

import numpy as np

from poolc.errors import InvalidOption, UnsupportedTask
from poolc.runtime import batching, heads
from poolc.runtime.engine import Engine
from poolc.runtime.items import check_items
from poolc.runtime.outputs import Float32
from poolc.runtime.request import Item, Params, Prepared, Row, TokenSequence
from poolc.spec import MAIN_SET, POOLED, TOKEN_EMBEDDINGS, TOKENS_SET, Kind, ModelSpec, Task

SPEC = ModelSpec(
    architecture="Fake",
    model_type="fake",
    kind=Kind.EMBEDDING,
    tasks=(Task.EMBED, Task.ENCODE),
    hidden_size=4,
    max_length=1000,
    inputs=("input_ids",),
    vocab_size=1 << 21,
    embedding_size=4,
)
PATIENCE_S = 20.0  # for what happens at once unless something is broken


class FakeEngine:
    """The seam of ``Engine``: a character is a token, a vector tells its text."""

    def __init__(self, *, streams: int = 2, budget: int = 64, spec: ModelSpec = SPEC) -> None:
        self.spec = spec
        self.max_length = spec.max_length
        self.streams = streams
        # More threads than streams: it is the scheduler that has to keep to the streams.
        self.executor = ThreadPoolExecutor(streams + 2)
        self.artifact = SimpleNamespace(
            artifact_id="a" * 64,
            space_id="5" * 64,
            sizes=dict,
            manifest=SimpleNamespace(source=SimpleNamespace(id="org/fake")),
        )
        self.started: list[list[str]] = []  # the texts of each micro-batch, in order
        self.alone: list[bool] = []  # whether nothing ran or waited beside each
        self.others: list[FakeEngine] = []  # the same model on further devices
        self.devices: tuple[str, ...] = ("cpu",)
        self.lost_devices: tuple[str, ...] = ()
        self.cannot_restart: Exception | None = None
        self.restarts = 0
        self.model_cpu_s = 0.0
        self.peak = 0  # micro-batches at the same time
        self.prepared = 0
        self.poison = "poison"
        self.failure: BaseException | None = None  # what a micro-batch with ``poison`` raises
        self._budget = self.budget_tokens = budget
        self._running = 0
        self._held = False
        self._changed = threading.Condition()

    def chat_prompt(self, messages: Sequence[object], **options: object) -> str:
        """Nobody sends it messages."""
        raise InvalidOption("this model has no chat template", param="messages")

    @property
    def engine(self) -> Engine:
        """This, as what the server takes it for."""
        return cast("Engine", self)

    def hold(self) -> None:
        """Let micro-batches start but not end."""
        self._held = True

    def release(self) -> None:
        """Let them end."""
        with self._changed:
            self._held = False
            self._changed.notify_all()

    def wait_until_started(self, count: int) -> None:
        """Block until ``count`` micro-batches have started."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.started) >= count, PATIENCE_S)

    def by_device(self) -> list[FakeEngine]:
        return [self, *self.others]

    def restart(self) -> None:
        self.restarts += 1
        if self.cannot_restart is not None:
            raise self.cannot_restart

    def close(self) -> None:
        self.release()
        self.executor.shutdown()

    # The seam.

    def require(self, task: Task) -> None:
        if task not in self.spec.tasks:
            raise UnsupportedTask(f"this model does not support {task}")

    def prepare(self, task: Task, items: Sequence[Item], params: Params) -> Prepared:
        self.prepared += 1
        self.require(task)
        heads.check_params(self.spec, task, params)
        check_items(items)
        texts = [item for item in items if isinstance(item, str)]
        sequences = [TokenSequence(np.array([ord(c) for c in text]), None) for text in texts]
        return Prepared(task, params, sequences, TOKENS_SET if task is Task.ENCODE else MAIN_SET)

    def plan(self, lengths: Sequence[int], streams: int | None = None) -> list[batching.MicroBatch]:
        return batching.plan(lengths, self._budget, 1)

    def execute(
        self, sequences: Sequence[TokenSequence], output_set: str, *, alone: bool = False
    ) -> list[Row]:
        texts = ["".join(map(chr, sequence.ids)) for sequence in sequences]
        with self._changed:
            self.started.append(texts)
            self.alone.append(alone)
            self._running += 1
            self.peak = max(self.peak, self._running)
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: not self._held, PATIENCE_S)
            self._running -= 1
        if self.failure is not None and any(self.poison in text for text in texts):
            raise self.failure
        if output_set == TOKENS_SET:
            return [{TOKEN_EMBEDDINGS: np.stack([vector_of(c) for c in text])} for text in texts]
        return [{POOLED: vector_of(text)} for text in texts]

    def finish(self, prepared: Prepared, rows: Sequence[Row]) -> heads.Result:
        return heads.finish(self.spec, prepared, rows)


def vector_of(text: str) -> Float32:
    """Return what the fake model makes of a text: no two texts of a test agree."""
    codes = [ord(c) for c in text]
    weighted = sum((i + 1) * code for i, code in enumerate(codes))
    return np.array([len(text), codes[0], codes[-1], weighted], np.float32)
