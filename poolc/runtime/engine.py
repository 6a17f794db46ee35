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
from poolc.model_cache.manifest import TOKENIZER_CONFIG_FILE, TOKENIZER_FILE
from poolc.runtime import heads
from poolc.runtime.backends.base import Backend
from poolc.runtime.batching import MicroBatch, plan
from poolc.runtime.budgets import check_budgets, within_budgets
from poolc.runtime.calls import Calls
from poolc.runtime.cores import allowed_cores, shared_executor
from poolc.runtime.pair_prompts import PairPrompts, PromptMaker
from poolc.runtime.prompts import resolve_prompt
from poolc.runtime.request import Item, Params, Prepared, Row, TokenSequence
from poolc.runtime.templates import special_tokens
from poolc.runtime.tokenize import How, Limits, TextTokenizer
from poolc.runtime.work import Work
from poolc.spec import (
    ATTENTION_MASK,
    HYBRID_SET,
    INPUT_IDS,
    MAIN_SET,
    POOLING_MASK,
    TOKEN_OUTPUTS,
    TOKEN_TYPE_IDS,
    TOKENS_SET,
    Kind,
    MatryoshkaSpec,
    Target,
    Task,
)

_DEFAULT_BUDGET_TOKENS = 256


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
        limits = Limits(
            spec.max_length, spec.vocab_size, TOKEN_TYPE_IDS in spec.inputs, spec.truncation_side
        )
        self._tokenizer = TextTokenizer(artifact.file(TOKENIZER_FILE), limits)
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
        asked = self._asked(task, items, params, 0)
        self._tokenizer.check(asked.items)
        if params.truncate:
            return
        if asked.prompts is not None:
            asked.prompts.check_lengths(asked.items, asked.how)
        else:
            self._tokenizer.check_lengths(asked.items, **asked.how)

    def prepare(
        self, task: Task, items: Sequence[Item], params: Params, *, first_index: int = 0
    ) -> Prepared:
        """Validate and tokenise ``items``; for ``Task.SCORE`` they are (left, right) pairs.

        Raises UnsupportedTask, InvalidText, TextTooLong, InvalidDimensions or InvalidOption, with
        the index of the item counted from ``first_index``.
        """
        asked = self._asked(task, items, params, first_index)
        truncate = bool(params.truncate)
        if asked.prompts is not None:
            sequences = asked.prompts.encode(asked.items, truncate=truncate, how=asked.how)
        else:
            sequences = self._tokenizer.encode(asked.items, truncate=truncate, **asked.how)
        for i in np.flatnonzero(asked.cut):
            sequences[i] = replace(sequences[i], truncated=True)
        return Prepared(task, params, sequences, self._output_set(task), asked.pairs)

    def plan(self, lengths: Sequence[int]) -> list[MicroBatch]:
        """Group sequences of these lengths into micro-batches; pure, see ``batching.plan``."""
        return plan(lengths, self._budget, self.streams)

    def execute(self, sequences: Sequence[TokenSequence], output_set: str) -> list[Row]:
        """Run one micro-batch on the calling thread and return one row a sequence.

        Thread-safe; the GIL is released while the model runs. Raises BackendError.
        """
        fetched = self._backend.run(output_set, self._feeds(sequences))
        rows: list[Row] = []
        for i, sequence in enumerate(sequences):
            row = {name: values[i] for name, values in fetched.items()}
            for name in TOKEN_OUTPUTS & row.keys():
                row[name] = row[name][: len(sequence)]
            rows.append(row)
        return rows

    def finish(self, prepared: Prepared, rows: Sequence[Row]) -> heads.Result:
        """Turn rows, in the order of ``prepared.sequences``, into the task's result.

        embed: [n, dim]; classify: Classification; score: [n]; reward: [n] or Ragged; encode:
        Ragged.
        """
        return heads.finish(self.spec, prepared, rows)

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

    def _asked(self, task: Task, items: Sequence[Item], params: Params, first_index: int) -> _Asked:
        self.require(task)
        heads.check_params(self.spec, task, params)
        indices: Sequence[int] = range(first_index, first_index + len(items))
        _check_shape(task, items, indices)
        reads_pairs = self.spec.kind is Kind.CLASSIFIER
        prompts = self._prompts.prompts(params)
        check_budgets(params, self.max_length, pairs=reads_pairs or task is Task.SCORE)
        items, cut_sides = within_budgets(items, params, self._tokenizer, indices)
        pairs, cut = None, [any(sides) for sides in cut_sides]
        if task is Task.SCORE and not reads_pairs:
            items, pairs, cut = _deduplicated(items, cut_sides)
            # Errors name the first pair that a distinct text occurs in.
            _, first = np.unique(pairs, return_index=True)
            indices = [first_index + int(flat) // 2 for flat in first]
        embeds = self.spec.embedding_size is not None and task in (Task.EMBED, Task.SCORE)
        how: How = {
            "prefix": resolve_prompt(self.spec, params) if embeds else "",
            "max_length": params.max_length,
            "add_special_tokens": params.add_special_tokens is not False,
            "indices": indices,
        }
        return _Asked(items, how, pairs, cut, prompts)

    def _output_set(self, task: Task) -> str:
        if task is Task.EMBED_HYBRID:
            return HYBRID_SET
        headless = self.spec.kind is Kind.REWARD and not self.spec.labels
        return TOKENS_SET if task is Task.ENCODE or headless else MAIN_SET

    def _feeds(self, sequences: Sequence[TokenSequence]) -> dict[str, npt.NDArray[np.int64]]:
        shape = (len(sequences), max(len(sequence) for sequence in sequences))
        feeds = {name: np.zeros(shape, np.int64) for name in self.spec.inputs}
        if self.spec.pad_token_id:
            # Some families derive positions from "is this the padding id", not from the mask.
            feeds[INPUT_IDS].fill(self.spec.pad_token_id)
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
    if task not in (Task.SCORE, Task.EMBED):
        return
    for item, index in zip(items, indices, strict=True):
        if task is Task.SCORE and not _is_pair(item):
            raise InvalidText(f"item {index}: a score compares a pair of strings", index=index)
        if task is Task.EMBED and isinstance(item, tuple):
            raise InvalidText(f"item {index}: embed takes single texts, not pairs", index=index)


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
