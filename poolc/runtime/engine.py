"""Engine: one loaded artifact and its five tasks, through one seam.

``prepare`` (validate, prompt, tokenise) -> ``plan`` (micro-batches, pure) -> ``execute`` (one
micro-batch, on a stream) -> ``finish`` (truncate, normalise, activate). The server and bulk jobs
use the same four. Request parameters act only in the first and the last, so micro-batches mix
requests.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from poolc.errors import BackendError, InvalidOption, PoolcError, UnsupportedTask
from poolc.model_cache.artifact import Artifact
from poolc.model_cache.manifest import TOKENIZER_CONFIG_FILE
from poolc.runtime import heads
from poolc.runtime.backends.base import Feeds, Fetches
from poolc.runtime.backends.opening import device_names, open_backend
from poolc.runtime.batching import MicroBatch, plan
from poolc.runtime.calls import Calls
from poolc.runtime.chat import ChatTemplate, Message
from poolc.runtime.cores import computing
from poolc.runtime.memory import MemoryFit, MemoryGuard
from poolc.runtime.pair_prompts import PromptMaker
from poolc.runtime.reading import Reader
from poolc.runtime.request import Item, Params, Prepared, Row, TokenSequence
from poolc.runtime.routes import load_routes
from poolc.runtime.templates import special_tokens
from poolc.runtime.tokenize import TextTokenizer
from poolc.runtime.work import Lone, Running, Work
from poolc.spec import (
    ATTENTION_MASK,
    HYBRID_SET,
    INPUT_IDS,
    MAIN_SET,
    POOLING_MASK,
    SPARSE_EMBEDDING,
    TOKEN_OUTPUTS,
    TOKEN_TYPE_IDS,
    TOKEN_VECTORS,
    TOKENS_SET,
    Kind,
    MatryoshkaSpec,
    Target,
    Task,
    route_set,
    set_route,
)

_DEFAULT_BUDGET_TOKENS = 256
_WINDOW_CHARS_PER_TOKEN = 8
# What the heads of hybrid models beside the dense one answer.
_HYBRID = (Task.EMBED_SPARSE, Task.EMBED_TOKENS, Task.EMBED_HYBRID)


class Engine(Calls):
    """A loaded artifact. Thread-safe; made by ``poolc.load``.

    ``matryoshka`` overrides what the artifact says about output sizes. ``memory_limit`` is in
    bytes: see ``memory.py``. ``device`` is cpu, or cuda, cuda:1 or several, as the target
    allows. Raises
    ArtifactIncompatible for an engine of another machine, MissingDependency where ONNX Runtime,
    TensorRT or CUDA is not installed, and InvalidOption for another kind of device or a limit below
    what the model alone takes.
    """

    def __init__(
        self,
        artifact: Artifact,
        *,
        matryoshka: MatryoshkaSpec | None = None,
        memory_limit: int | None = None,
        device: str | None = None,
    ) -> None:
        self.artifact = artifact
        spec = artifact.manifest.spec
        self.spec = spec if matryoshka is None else replace(spec, matryoshka=matryoshka)
        self.max_length = spec.max_length
        self.budget_tokens = int(
            artifact.manifest.tuning.get("budget_tokens", _DEFAULT_BUDGET_TOKENS)
        )
        fit = None
        if memory_limit is not None:
            fit = MemoryFit.needed(artifact.report(), spec.max_length)
        self._memory = MemoryGuard(fit, memory_limit, spec.max_length)
        self.device = device
        self._callers_cpu_s = 0.0
        self._backend = open_backend(artifact, device)
        self.streams = self._backend.streams
        if artifact.manifest.target is not Target.CPU:
            # A few micro-batches: a GPU computes one window while the next is tokenised.
            self.window_chars = _WINDOW_CHARS_PER_TOKEN * self.budget_tokens
        self._routes = load_routes(artifact)
        self._tokenizer = self._routes[""].tokenizer
        self.spelling = self._tokenizer.spelling
        settings = _tokenizer_settings(artifact)
        template = settings.get("chat_template")
        self._chat = None
        if isinstance(template, str):
            self._chat = ChatTemplate(template, special_tokens(settings))
        prompts = _prompt_maker(artifact, self._tokenizer, settings)
        self._reader = Reader(self.spec, self._routes, prompts)

    @property
    def executor(self) -> ThreadPoolExecutor:
        """The threads that micro-batches run on: on a CPU those of all engines of the process."""
        return self._backend.executor

    @property
    def model_cpu_s(self) -> float:
        """Processor time inside the model so far, of callers' threads and the library's."""
        return self._callers_cpu_s + self._backend.pool_cpu_s

    @property
    def backend_name(self) -> str:
        """What executes the graphs: onnxruntime-cpu, onnxruntime-cuda, tensorrt, tensorrt-rtx."""
        return self._backend.name

    def tokenize(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Return the token ids of a text, without prompt. Raises InvalidText or TextTooLong."""
        (sequence,) = self._tokenizer.encode([text], add_special_tokens=add_special_tokens)
        return [int(i) for i in sequence.ids]

    def chat_prompt(self, messages: Sequence[Message], **options: Any) -> str:
        """Return the text of a conversation, by the model's chat template; see ``chat.py``.

        Raises InvalidOption for a model that has none, and for what goes wrong in it.
        """
        if self._chat is None:
            raise InvalidOption(
                "this model has no chat template: send the text of the messages as input",
                param="messages",
            )
        return self._chat.render(messages, **options)

    def check(self, task: Task, items: Sequence[Item], params: Params) -> None:
        """Raise what ``prepare`` raises; only what may be too long is tokenised for it.

        Under a memory limit that the longest texts exceed, everything is.
        """
        self.require(task)
        heads.check_params(self.spec, task, params)
        self._reader.check(task, items, params)
        if self._memory.most_tokens < self.max_length:
            self.prepare(task, items, params)

    def prepare(
        self, task: Task, items: Sequence[Item], params: Params, *, first_index: int = 0
    ) -> Prepared:
        """Validate and tokenise ``items``; for ``Task.SCORE`` they are (left, right) pairs.

        Raises UnsupportedTask, InvalidText, TextTooLong (beyond the memory limit too),
        InvalidDimensions or InvalidOption, with the index of the item counted from ``first_index``.
        """
        self.require(task)
        heads.check_params(self.spec, task, params)
        read = self._reader.read(task, items, params, first_index)
        prepared = Prepared(
            task,
            params,
            read.sequences,
            route_set(self._output_set(task), read.route),
            read.pairs,
            read.edges,
            read.spelling,
        )
        self._memory.check(prepared, first_index)
        return prepared

    def plan(self, lengths: Sequence[int], streams: int | None = None) -> list[MicroBatch]:
        """Group sequences of these lengths into micro-batches; pure, see ``batching.plan``.

        ``streams`` are those that a small backlog is spread over: all that the backend spreads over
        unless given.
        """
        spread = self._backend.spread if streams is None else min(streams, self._backend.spread)
        return plan(lengths, self.budget_tokens, spread)

    def execute(
        self, sequences: Sequence[TokenSequence], output_set: str, *, alone: bool = False
    ) -> list[Row]:
        """Run one micro-batch on the calling thread and return one row a sequence.

        ``alone``: nothing else waits, so that it may have all cores if nothing else runs either.
        Thread-safe; the GIL is released while the model runs. Sequences of several routes of a
        router run one route after the other. Raises BackendError.
        """
        if self.spec.router is None:
            return self._execute(sequences, output_set, alone)
        by_route: dict[str, list[int]] = {}
        for i, sequence in enumerate(sequences):
            route = set_route(output_set) if sequence.route is None else sequence.route
            by_route.setdefault(route, []).append(i)
        rows: dict[int, Row] = {}
        for route, places in by_route.items():
            chosen = [sequences[i] for i in places]
            found = self._execute(chosen, route_set(output_set, route), alone)
            rows |= zip(places, found, strict=True)
        return [rows[i] for i in range(len(sequences))]

    def _execute(
        self, sequences: Sequence[TokenSequence], output_set: str, alone: bool
    ) -> list[Row]:
        feeds = self.feeds(sequences, set_route(output_set))
        with self._memory.holding(feeds[INPUT_IDS].size), computing() as others:
            began_s = time.thread_time()
            fetched = self._run(output_set, feeds, alone=alone and not others)
            self._callers_cpu_s += time.thread_time() - began_s
        names = tuple(fetched)
        rows: list[Row] = [
            dict(zip(names, values, strict=True)) for values in zip(*fetched.values(), strict=True)
        ]
        if TOKEN_OUTPUTS.isdisjoint(names) and SPARSE_EMBEDDING not in names:
            return rows
        return [
            _without_padding(row, sequence) for row, sequence in zip(rows, sequences, strict=True)
        ]

    def _run(self, output_set: str, feeds: Feeds, *, alone: bool) -> Fetches:
        backend = self._backend
        try:
            return backend.run(output_set, feeds, alone=alone)
        except BackendError:
            if backend is self._backend:
                raise
        return self._backend.run(output_set, feeds, alone=alone)  # opened anew meanwhile

    def finish(self, prepared: Prepared, rows: Sequence[Row]) -> heads.Result:
        """Turn rows, in the order of ``prepared.sequences``, into the task's result.

        embed: [n, dim]; classify: Classification; score: [n]; reward: [n] or Ragged; encode and
        embed_tokens: Ragged; embed_sparse: SparseVectors; embed_hybrid: HybridVectors.
        """
        return heads.finish(self.spec, prepared, rows, self._tokenizer.token)

    def submit(self, prepared: Prepared) -> Work:
        """Queue a request's micro-batches on the executor; a lone one runs where it is awaited."""
        output_set, started = prepared.output_set, list[tuple[MicroBatch, Running]]()
        batches = self.plan(prepared.lengths)
        for batch in batches:
            chosen = [prepared.sequences[i] for i in batch.indices]
            if len(batches) == 1:
                run = partial(self.execute, chosen, output_set, alone=True)
                started.append((batch, Lone(run, self.executor)))
            else:
                started.append((batch, self.executor.submit(self.execute, chosen, output_set)))
        return Work(len(prepared.sequences), started)

    def require(self, task: Task) -> None:
        """Raise UnsupportedTask where the model does not do ``task``."""
        if task not in self.spec.tasks:
            raise UnsupportedTask(
                f"this model does not support {task}; it supports: {', '.join(self.spec.tasks)}"
            )

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices that it runs on: cpu, or cuda, cuda:1, ..."""
        on_cpu = self.artifact.manifest.target is Target.CPU
        return device_names(self.device or ("cpu" if on_cpu else "cuda"))

    @property
    def lost_devices(self) -> tuple[str, ...]:
        """Devices, of several, that failed where others did not, and run nothing any more."""
        return tuple(getattr(self._backend, "lost", ()))

    def by_device(self) -> list[Engine]:
        """Return this engine on each of its devices alone, to execute on; it shares the rest."""
        found = []
        for backend in getattr(self._backend, "backends", (self._backend,)):
            one = copy(self)
            one._backend = backend
            found.append(one)
        return found

    def restart(self) -> None:
        """Open the graphs anew; what runs meanwhile ends on the old ones. Raises ArtifactError."""
        old = self._backend
        try:
            self._backend = open_backend(self.artifact, self.device)
        except PoolcError:
            if self.artifact.manifest.target is Target.CPU:
                raise
            old.close()  # a device may have no room for both
            self._backend = open_backend(self.artifact, self.device)
        else:
            old.close()

    def close(self) -> None:
        """Release the model's memory; the engine cannot be used afterwards."""
        self._backend.close()

    def _output_set(self, task: Task) -> str:
        if self.spec.kind is Kind.HYBRID and task in _HYBRID:
            return HYBRID_SET
        headless = self.spec.kind is Kind.REWARD and not self.spec.labels
        return TOKENS_SET if task is Task.ENCODE or headless else MAIN_SET

    def feeds(
        self, sequences: Sequence[TokenSequence], route: str
    ) -> dict[str, npt.NDArray[np.int64]]:
        """Return what a graph is fed: every input of the spec, int64 [batch, seq], padded."""
        spec = self._routes[route].spec
        ids = [sequence.ids for sequence in sequences]
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        shape = (len(sequences), int(lengths.max()))
        is_real = np.arange(shape[1]) < lengths[:, None]
        feeds = {name: np.zeros(shape, np.int64) for name in spec.inputs}
        if spec.pad_token_id:
            # Some families derive positions from "is this the padding id", not from the mask.
            feeds[INPUT_IDS].fill(spec.pad_token_id)
        feeds[INPUT_IDS][is_real] = np.concatenate(ids)
        parts: list[tuple[str, list[npt.NDArray[Any] | None], int]] = [
            (ATTENTION_MASK, [s.attended for s in sequences], 1)
        ]
        if POOLING_MASK in feeds:
            parts.append((POOLING_MASK, [s.counted for s in sequences], 1))
        if TOKEN_TYPE_IDS in feeds:
            parts.append((TOKEN_TYPE_IDS, [s.type_ids for s in sequences], 0))
        for name, found, default in parts:
            if any(part is not None for part in found):
                feeds[name][is_real] = _joined(found, lengths.tolist(), default)
            elif default:
                feeds[name][is_real] = default
        return feeds


def _without_padding(row: Row, sequence: TokenSequence) -> Row:
    own = dict(row)
    for name in TOKEN_OUTPUTS & row.keys():
        own[name] = row[name][: len(sequence)]
    if TOKEN_VECTORS in own and sequence.counted is not None:
        own[TOKEN_VECTORS] = own[TOKEN_VECTORS][sequence.counted]
    return heads.compact(own) if SPARSE_EMBEDDING in own else own


def _joined(
    parts: Sequence[npt.NDArray[Any] | None], lengths: Sequence[int], default: int
) -> npt.NDArray[np.int64]:
    """Join what each sequence has a number a token of, ``default`` where it has none."""
    return np.concatenate(
        [
            np.full(length, default, np.int64) if part is None else part.astype(np.int64)
            for length, part in zip(lengths, parts, strict=True)
        ]
    )


def _tokenizer_settings(artifact: Artifact) -> dict[str, Any]:
    if TOKENIZER_CONFIG_FILE not in artifact.manifest.files:
        return {}
    content = artifact.file(TOKENIZER_CONFIG_FILE).read_text(encoding="utf-8")
    settings: dict[str, Any] = json.loads(content)
    return settings


def _prompt_maker(
    artifact: Artifact, tokenizer: TextTokenizer, settings: Mapping[str, Any]
) -> PromptMaker:
    spec = artifact.manifest.spec
    source = None
    if spec.template is not None:
        source = artifact.file(spec.template).read_text(encoding="utf-8")
    return PromptMaker(spec, source, tokenizer, special_tokens(settings))
