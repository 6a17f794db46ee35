"""Engine: one loaded artifact and its five tasks, through one seam.

``prepare`` (validate, prompt, tokenise) -> ``plan`` (micro-batches, pure) -> ``execute`` (one
micro-batch, on a stream) -> ``finish`` (truncate, normalise, activate). The server and bulk jobs
use the same four. Request parameters act only in the first and the last, so micro-batches mix
requests.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from poolc.errors import ArtifactIncompatible, InvalidText, UnsupportedTask
from poolc.model_cache.artifact import Artifact
from poolc.model_cache.manifest import TOKENIZER_CONFIG_FILE
from poolc.runtime import heads
from poolc.runtime.backends.base import Backend
from poolc.runtime.batching import MicroBatch, plan
from poolc.runtime.budgets import check_budgets, within_budgets
from poolc.runtime.calls import Calls
from poolc.runtime.chunking import Chunker, chunks
from poolc.runtime.cores import allowed_cores, shared_executor
from poolc.runtime.pair_prompts import PairPrompts, PromptMaker
from poolc.runtime.prompts import resolve_prompt
from poolc.runtime.request import Item, Params, Prepared, Row, TokenSequence
from poolc.runtime.routes import choose_route, load_routes
from poolc.runtime.sides import SideTokenizer
from poolc.runtime.templates import special_tokens
from poolc.runtime.tokenize import How, TextTokenizer
from poolc.runtime.work import Work
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
# Tasks whose items are single texts; all but the first are answered by heads of hybrid models too.
_EMBEDS = (Task.EMBED, Task.EMBED_SPARSE, Task.EMBED_TOKENS, Task.EMBED_HYBRID)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What to tokenise and how; which of it a score compares; what was shortened before."""

    items: Sequence[Item]
    how: How
    pairs: npt.NDArray[np.int64] | None = None
    cut: Sequence[bool] = ()
    prompts: PairPrompts | None = None  # what makes prompts of pairs


class Engine(Calls):
    """A loaded artifact. Thread-safe; made by ``poolc.load``.

    ``matryoshka`` overrides what the artifact says about output sizes. Raises ArtifactIncompatible
    for an artifact of another target and MissingDependency where ONNX Runtime is not installed.
    """

    def __init__(self, artifact: Artifact, *, matryoshka: MatryoshkaSpec | None = None) -> None:
        self.artifact = artifact
        spec = artifact.manifest.spec
        self.spec = spec if matryoshka is None else replace(spec, matryoshka=matryoshka)
        self.max_length = spec.max_length
        self.streams = allowed_cores()
        self._budget = int(artifact.manifest.tuning.get("budget_tokens", _DEFAULT_BUDGET_TOKENS))
        self._backend = open_backend(artifact)
        self._routes = load_routes(artifact)
        self._tokenizer = self._routes[""].tokenizer
        self._chunkers = {
            name: Chunker(route.tokenizer, route.spec.max_embed_length)
            for name, route in self._routes.items()
        }
        sides = spec.multi_vector
        self._sides = None if sides is None else SideTokenizer(spec, sides, self._tokenizer)
        self._prompts = _prompt_maker(artifact, self._tokenizer)

    @property
    def executor(self) -> ThreadPoolExecutor:
        """The process's one executor, which all engines share."""
        return shared_executor()

    def tokenize(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Return the token ids of a text, without prompt. Raises InvalidText or TextTooLong."""
        (sequence,) = self._tokenizer.encode([text], add_special_tokens=add_special_tokens)
        return [int(i) for i in sequence.ids]

    def check(self, task: Task, items: Sequence[Item], params: Params) -> None:
        """Raise what ``prepare`` raises; only what may be too long is tokenised for it."""
        if self._sides is not None and self._sides.applies(task):
            items, _ = self._shortened(task, items, params, range(len(items)))
            self._sides.check(task, items, params)
            return
        asked = self._asked(task, items, params, 0)
        route = choose_route(self.spec, task, params)
        tokenizer = self._routes[route].tokenizer
        tokenizer.check(asked.items)
        if chunks(self.spec, task, params):
            self._chunkers[route].check_lengths(asked.items, **asked.how)
        elif params.truncate:
            return
        elif asked.prompts is not None:
            asked.prompts.check_lengths(asked.items, asked.how)
        else:
            tokenizer.check_lengths(asked.items, **asked.how)

    def prepare(
        self, task: Task, items: Sequence[Item], params: Params, *, first_index: int = 0
    ) -> Prepared:
        """Validate and tokenise ``items``; for ``Task.SCORE`` they are (left, right) pairs.

        Raises UnsupportedTask, InvalidText, TextTooLong, InvalidDimensions or InvalidOption, with
        the index of the item counted from ``first_index``.
        """
        output_set = self._output_set(task)
        if self._sides is not None and self._sides.applies(task):
            indices = range(first_index, first_index + len(items))
            items, cut = self._shortened(task, items, params, indices)
            sequences, pairs = self._sides.encode(task, items, params, first_index)
            for row, side in np.argwhere(cut) if pairs is not None else ():
                place = int(pairs[row, side])  # type: ignore[index]
                sequences[place] = replace(sequences[place], truncated=True)
            return Prepared(task, params, sequences, output_set, pairs)
        asked = self._asked(task, items, params, first_index)
        route = choose_route(self.spec, task, params)
        tokenizer, output_set = self._routes[route].tokenizer, route_set(output_set, route)
        if chunks(self.spec, task, params):
            found = self._chunkers[route].encode(asked.items, **asked.how)
            _mark(found.sequences, asked.cut, found.edges)
            return Prepared(task, params, found.sequences, output_set, asked.pairs, found.edges)
        if asked.prompts is not None:
            truncate = bool(params.truncate)
            sequences = asked.prompts.encode(asked.items, truncate=truncate, how=asked.how)
        else:
            sequences = tokenizer.encode(asked.items, truncate=bool(params.truncate), **asked.how)
        _mark(sequences, asked.cut, None)
        spelling = tokenizer.spelling if asked.how.get("sources") else None
        return Prepared(task, params, sequences, output_set, asked.pairs, spelling=spelling)

    def plan(self, lengths: Sequence[int]) -> list[MicroBatch]:
        """Group sequences of these lengths into micro-batches; pure, see ``batching.plan``."""
        return plan(lengths, self._budget, self.streams)

    def execute(self, sequences: Sequence[TokenSequence], output_set: str) -> list[Row]:
        """Run one micro-batch on the calling thread and return one row a sequence.

        Thread-safe; the GIL is released while the model runs. Raises BackendError.
        """
        fetched = self._backend.run(output_set, self.feeds(sequences, set_route(output_set)))
        rows: list[Row] = []
        for i, sequence in enumerate(sequences):
            row = {name: values[i] for name, values in fetched.items()}
            for name in TOKEN_OUTPUTS & row.keys():
                row[name] = row[name][: len(sequence)]
            if TOKEN_VECTORS in row and sequence.counted is not None:
                row[TOKEN_VECTORS] = row[TOKEN_VECTORS][sequence.counted]
            rows.append(heads.compact(row) if SPARSE_EMBEDDING in row else row)
        return rows

    def finish(self, prepared: Prepared, rows: Sequence[Row]) -> heads.Result:
        """Turn rows, in the order of ``prepared.sequences``, into the task's result.

        embed: [n, dim]; classify: Classification; score: [n]; reward: [n] or Ragged; encode and
        embed_tokens: Ragged; embed_sparse: SparseVectors; embed_hybrid: HybridVectors.
        """
        return heads.finish(self.spec, prepared, rows, self._tokenizer.token)

    def submit(self, prepared: Prepared) -> Work:
        """Queue a request's micro-batches on the executor."""
        started = []
        for batch in self.plan(prepared.lengths):
            chosen = [prepared.sequences[i] for i in batch.indices]
            started.append((batch, self.executor.submit(self.execute, chosen, prepared.output_set)))
        return Work(len(prepared.sequences), started)

    def require(self, task: Task) -> None:
        """Raise UnsupportedTask where the model does not do ``task``."""
        if task not in self.spec.tasks:
            raise UnsupportedTask(
                f"this model does not support {task}; it supports: {', '.join(self.spec.tasks)}"
            )

    def close(self) -> None:
        """Release the model's memory; the engine cannot be used afterwards."""
        self._backend.close()

    def _shortened(
        self, task: Task, items: Sequence[Item], params: Params, indices: Sequence[int]
    ) -> tuple[list[Any], list[tuple[bool, bool]]]:
        """Validate items; cut the texts of pairs to their budgets, and say which were cut."""
        self.require(task)
        heads.check_params(self.spec, task, params)
        chunks(self.spec, task, params)  # refuses policies that contradict each other
        _check_shape(task, items, indices)
        pairs = self.spec.kind is Kind.CLASSIFIER or task is Task.SCORE
        check_budgets(params, self.max_length, pairs=pairs)
        self._prompts.prompts(params)  # refuses a template or instruction that has no place
        return within_budgets(items, params, self._tokenizer, indices)

    def _asked(self, task: Task, items: Sequence[Item], params: Params, first_index: int) -> _Asked:
        indices: Sequence[int] = range(first_index, first_index + len(items))
        items, cut_sides = self._shortened(task, items, params, indices)
        prompts = self._prompts.prompts(params)
        pairs, cut = None, [any(sides) for sides in cut_sides]
        if task is Task.SCORE and self.spec.kind is not Kind.CLASSIFIER:
            items, pairs, cut = _deduplicated(items, cut_sides)
            # Errors name the first pair that a distinct text occurs in.
            _, first = np.unique(pairs, return_index=True)
            indices = [first_index + int(flat) // 2 for flat in first]
        embeds = self.spec.embedding_size is not None and task in (*_EMBEDS, Task.SCORE)
        how: How = {
            "prefix": resolve_prompt(self.spec, params) if embeds else "",
            "max_length": params.max_length,
            "add_special_tokens": params.add_special_tokens is not False,
            "truncation_side": params.truncation_side,
            "count_prefix": self.spec.include_prompt,
            "indices": indices,
            "sources": params.aggregation not in (None, "none"),
        }
        return _Asked(items, how, pairs, cut, prompts)

    def _output_set(self, task: Task) -> str:
        if self.spec.kind is Kind.HYBRID and task in _EMBEDS[1:]:
            return HYBRID_SET
        headless = self.spec.kind is Kind.REWARD and not self.spec.labels
        return TOKENS_SET if task is Task.ENCODE or headless else MAIN_SET

    def feeds(
        self, sequences: Sequence[TokenSequence], route: str
    ) -> dict[str, npt.NDArray[np.int64]]:
        spec = self._routes[route].spec
        shape = (len(sequences), max(len(sequence) for sequence in sequences))
        feeds = {name: np.zeros(shape, np.int64) for name in spec.inputs}
        if spec.pad_token_id:
            # Some families derive positions from "is this the padding id", not from the mask.
            feeds[INPUT_IDS].fill(spec.pad_token_id)
        for i, sequence in enumerate(sequences):
            length = len(sequence)
            feeds[INPUT_IDS][i, :length] = sequence.ids
            feeds[ATTENTION_MASK][i, :length] = (
                1 if sequence.attended is None else sequence.attended
            )
            if POOLING_MASK in feeds:
                feeds[POOLING_MASK][i, :length] = (
                    1 if sequence.counted is None else sequence.counted
                )
            if TOKEN_TYPE_IDS in feeds and sequence.type_ids is not None:
                feeds[TOKEN_TYPE_IDS][i, :length] = sequence.type_ids
        return feeds


def _mark(
    sequences: list[TokenSequence], cut: Sequence[bool], edges: npt.NDArray[np.int64] | None
) -> None:
    """Note which items were shortened before, on the first sequence of each."""
    for item in np.flatnonzero(cut):
        place = int(item if edges is None else edges[item])
        sequences[place] = replace(sequences[place], truncated=True)


def open_backend(artifact: Artifact) -> Backend:
    """Open the backend that an artifact was lowered for. Raises ArtifactIncompatible."""
    target = artifact.manifest.target
    if target is Target.CPU:
        from poolc.runtime.backends.onnxruntime import OnnxRuntimeBackend

        return OnnxRuntimeBackend(artifact)
    raise ArtifactIncompatible(f"this poolc runs artifacts for: cpu; this one is for {target}")


def _check_shape(task: Task, items: Sequence[Item], indices: Sequence[int]) -> None:
    if not len(items):
        raise InvalidText("the list of texts is empty: pass at least one")
    if task not in (Task.SCORE, *_EMBEDS):
        return
    for item, index in zip(items, indices, strict=True):
        if task is Task.SCORE and not _is_pair(item):
            raise InvalidText(f"item {index}: a score compares a pair of strings", index=index)
        if task in _EMBEDS and isinstance(item, tuple):
            raise InvalidText(f"item {index}: {task} takes single texts, not pairs", index=index)


def _is_pair(item: object) -> bool:
    return isinstance(item, tuple) and len(item) == 2 and all(isinstance(t, str) for t in item)


def _deduplicated(
    items: Sequence[Any], cut: Sequence[tuple[bool, bool]]
) -> tuple[list[Item], npt.NDArray[np.int64], list[bool]]:
    """Split pairs into distinct texts, [n, 2] positions (one query, N documents -> N + 1), and
    whether each text was cut."""
    positions: dict[tuple[str, bool], int] = {}
    pairs = np.empty((len(items), 2), np.int64)
    for row, pair in enumerate(items):
        for side, text in enumerate(zip(pair, cut[row], strict=True)):
            pairs[row, side] = positions.setdefault(text, len(positions))
    return [text for text, _ in positions], pairs, [was_cut for _, was_cut in positions]


def _prompt_maker(artifact: Artifact, tokenizer: TextTokenizer) -> PromptMaker:
    spec = artifact.manifest.spec
    if TOKENIZER_CONFIG_FILE in artifact.manifest.files:
        settings = json.loads(artifact.file(TOKENIZER_CONFIG_FILE).read_text(encoding="utf-8"))
    else:
        settings = {}
    source = None
    if spec.template is not None:
        source = artifact.file(spec.template).read_text(encoding="utf-8")
    return PromptMaker(spec, source, tokenizer, special_tokens(settings))
