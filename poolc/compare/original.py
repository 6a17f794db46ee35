"""The original model, in a process of the compiler: PyTorch never enters this one.

Its rows come from the library, one text at a time and in fp32; what becomes of a row (truncation,
activation, similarity) is the runtime's rule, as for artifacts.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np

from poolc import compiler_process
from poolc.compare.sides import Asked, Identity
from poolc.errors import CompileError, UnsupportedTask
from poolc.model_cache.serde import from_plain, to_plain
from poolc.model_cache.store import Store
from poolc.runtime.calls import windows
from poolc.runtime.heads.classes import classification, label_scores, rewards
from poolc.runtime.heads.embeddings import check_embedding_size, embeddings
from poolc.runtime.outputs import Float32, similarity
from poolc.runtime.prompts import DOCUMENT_PROMPT, QUERY_PROMPT, resolve_prompt
from poolc.runtime.request import Item, Params, Row
from poolc.spec import CompileOptions, Kind, ModelSpec, Precision, Task

OnEvent = Callable[[dict[str, Any]], None]
_GRACE_S = 10.0
_KINDS = (Kind.EMBEDDING, Kind.CLASSIFIER)


class OriginalSide:
    """A model folder or hub id. Starts its process; raises what fetching and loading raise."""

    def __init__(self, name: str, options: CompileOptions, store: Store, on_event: OnEvent) -> None:
        self._process = _Process(
            {"model": name, "options": to_plain(options), "store": str(store.root)}, on_event
        )
        opened = self._process.opened
        self.spec = from_plain(ModelSpec, opened["spec"], "spec")
        self.longest: int | None = int(opened["max_length"])
        self.identity = Identity(name, opened["library"], Precision.FP32)
        if self.spec.kind not in _KINDS:
            self.close()
            raise UnsupportedTask(
                f"{name} is a {self.spec.kind} model; originals are compared of these kinds: "
                f"{', '.join(_KINDS)}: compile it, and compare artifacts"
            )

    def answers(self, asked: Asked, items: Sequence[Item]) -> Iterator[Float32]:
        """See ``Side``."""
        if asked.dimensions is not None:
            check_embedding_size(self.spec, asked.task, asked.dimensions)
        for window in windows(items):
            if asked.task is Task.SCORE and self.spec.kind is Kind.EMBEDDING:
                yield self._similarities(asked, window)
            else:
                yield self._finished(asked, self._rows(asked.task, window, None))

    def close(self) -> None:
        """See ``Side``."""
        self._process.close()

    def _finished(self, asked: Asked, rows: list[Row]) -> Float32:
        spec, params = self.spec, Params(dimensions=asked.dimensions, label=asked.label)
        if asked.task is Task.EMBED:
            return np.asarray(embeddings(spec, params, rows), np.float32)
        if asked.task is Task.CLASSIFY:
            return classification(spec, params, rows).probs
        chosen = label_scores if asked.task is Task.SCORE else rewards
        return chosen(spec, params, rows)[:, None]

    def _similarities(self, asked: Asked, pairs: Sequence[Item]) -> Float32:
        sides = (QUERY_PROMPT, DOCUMENT_PROMPT) if self.spec.router else (None, None)
        left, right = (
            self._finished(
                Asked(Task.EMBED, asked.dimensions),
                self._rows(Task.EMBED, [str(pair[column]) for pair in pairs], side),
            )
            for column, side in enumerate(sides)
        )
        return similarity(left, right, self.spec.similarity)[:, None]

    def _rows(self, task: Task, items: Sequence[Item], side: str | None) -> list[Row]:
        embeds = self.spec.kind is Kind.EMBEDDING
        prompt = resolve_prompt(self.spec, Params(side=side)) if embeds else ""
        asked = {"task": task.value, "items": list(items), "prompt": prompt, "side": side}
        arrays = self._process.ask(asked)
        return [{name: array[i] for name, array in arrays.items()} for i in range(len(items))]


class _Process:
    """Sends lines, receives events and arrays; an error of the other side is raised here."""

    def __init__(self, request: dict[str, Any], on_event: OnEvent) -> None:
        receive, send = os.pipe()
        self._events: BinaryIO = os.fdopen(receive, "rb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "poolc.compiler.original", str(send)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(send,),
            env=compiler_process.environment(),
            encoding="utf-8",
            errors="replace",
        )
        os.close(send)
        self._log: deque[str] = deque(maxlen=compiler_process.LOG_TAIL_LINES)
        self._drain = threading.Thread(
            target=self._log.extend, args=(self._process.stdout,), daemon=True
        )
        self._drain.start()
        try:
            self.opened = self._after(request, "opened", on_event)
        except BaseException:
            self.close()
            raise

    def ask(self, request: dict[str, Any]) -> dict[str, Float32]:
        """Return the arrays that answer a request, by name. Raises what the process raised."""
        shapes: dict[str, list[int]] = self._after(request, "answer", lambda event: None)["shapes"]
        arrays = {}
        for name, shape in shapes.items():
            num_bytes = 4 * math.prod(shape)
            data = self._events.read(num_bytes)
            if len(data) < num_bytes:
                raise self._stopped()
            arrays[name] = np.frombuffer(data, "<f4").reshape(shape).astype(np.float32)
        return arrays

    def close(self) -> None:
        """End the process: without questions it cleans up and goes; a busy one is killed."""
        compiler_process.tell(self._process, "", last=True)
        try:
            self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._drain.join()
        self._events.close()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _after(self, request: dict[str, Any], wanted: str, on_event: OnEvent) -> dict[str, Any]:
        compiler_process.tell(self._process, json.dumps(request) + "\n")
        for line in self._events:
            event: dict[str, Any] = json.loads(line)
            if event["event"] == wanted:
                return event
            if event["event"] == "error":
                raise compiler_process.raised(event, self._log)
            on_event(event)
        raise self._stopped()

    def _stopped(self) -> CompileError:
        self._process.wait()
        self._drain.join()
        tail = "".join(self._log).strip()
        return CompileError(f"the original model's process stopped without an answer:\n{tail}")
