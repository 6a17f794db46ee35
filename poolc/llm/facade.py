"""LLM: vLLM's offline methods for pooling models, over an Engine.

Owns the methods, their defaults and how requests with different parameters share micro-batches.
Knows nothing about files, sessions or compiling: ``poolc.api.load`` finds or makes the artifact.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from poolc import api
from poolc.errors import InvalidOption
from poolc.llm.answers import Answer, token_ids, values
from poolc.llm.knobs import check_dtype, check_knobs, plain_overrides, plain_pooler_config
from poolc.llm.outputs import (
    ClassificationOutput,
    ClassificationRequestOutput,
    EmbeddingOutput,
    EmbeddingRequestOutput,
    PoolingOutput,
    PoolingRequestOutput,
    ScoringOutput,
    ScoringRequestOutput,
)
from poolc.llm.params import (
    Model,
    PoolingParams,
    per_prompt,
    request_params,
    task_of,
)
from poolc.llm.progress import UseTqdm, progress_bar
from poolc.llm.prompts import Prompts, as_items, as_texts
from poolc.llm.tasks import check_score, in_own_words, is_dense, require, task_named
from poolc.llm.truncation import shared_params, whole_number
from poolc.model_cache.artifact import is_artifact
from poolc.model_cache.score_templates import template_text
from poolc.runtime.calls import as_pairs, windows
from poolc.runtime.engine import Engine
from poolc.runtime.items import check_items
from poolc.runtime.prompts import PLAIN
from poolc.runtime.request import Item, Params, Prepared
from poolc.runtime.work import Work
from poolc.spec import Defaults, Kind, Task

_WINDOWS_IN_FLIGHT = 2

GivenParams = PoolingParams | Sequence[PoolingParams] | None


@dataclass(frozen=True, slots=True)
class _Call:
    """The arguments that every method has."""

    pooling_params: GivenParams
    use_tqdm: UseTqdm
    truncate_prompt_tokens: int | None
    tokenization_kwargs: Mapping[str, Any] | None
    lora_request: object
    template: str | None = None  # of score: Jinja source
    pooling_task: str | None = None  # of encode: vLLM's name


class LLM:
    """A pooling model behind vLLM's offline methods.

    ``model`` is an artifact, a model folder or a hub id; the last two are compiled on first use.
    The other arguments are options of ``poolc.compile`` under vLLM's names. Knobs of vLLM's GPU
    engine are accepted with one warning. Where a model's files configure no pooling, vLLM's
    ``defaults`` hold here: its last token (of an encoder its first), normalised. No prompt of the
    model is put before a text.
    ``chat_template`` is the score template that a reranker is compiled with.

    Raises InvalidOption for any other argument, and what ``poolc.load`` raises.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        runner: str = "auto",
        convert: str = "auto",
        tokenizer: str | Path | None = None,
        dtype: object = "auto",
        max_model_len: int | None = None,
        revision: str | None = None,
        hf_overrides: Mapping[str, Any] | None = None,
        pooler_config: object = None,
        trust_remote_code: bool = False,
        defaults: str | None = None,
        chat_template: str | Path | None = None,
        **engine_knobs: object,
    ) -> None:
        check_knobs(engine_knobs)
        check_dtype(dtype)
        max_model_len = whole_number("max_model_len", max_model_len)
        options: dict[str, Any] = {
            "runner": None if runner == "auto" else runner,
            "convert": None if convert == "auto" else convert,
            "tokenizer": None if tokenizer is None else str(tokenizer),
            "max_length": max_model_len,
            "revision": revision,
            "hf_overrides": plain_overrides(hf_overrides),
            "pooler_config": plain_pooler_config(pooler_config),
            "trust_remote_code": trust_remote_code or None,
            "defaults": defaults or Defaults.VLLM.value,
            "score_template": chat_template,
        }
        if is_artifact(Path(model).expanduser()):
            # It holds no code to trust, and a lower limit needs no other graph.
            options |= {"trust_remote_code": None, "max_length": None, "defaults": defaults}
        given = {name: value for name, value in options.items() if value is not None}
        self.engine = api.load(model, **given)
        self._model = _describe(str(model), self.engine, max_model_len)
        self._request_ids = itertools.count()

    def embed(
        self,
        prompts: Prompts,
        *,
        truncate_prompt_tokens: int | None = None,
        use_tqdm: UseTqdm = True,
        pooling_params: GivenParams = None,
        lora_request: object = None,
        tokenization_kwargs: Mapping[str, Any] | None = None,
    ) -> list[EmbeddingRequestOutput]:
        """Return one embedding vector a prompt; of a sparse model one weight a vocabulary token."""
        call = _Call(
            pooling_params, use_tqdm, truncate_prompt_tokens, tokenization_kwargs, lora_request
        )
        return [
            EmbeddingRequestOutput(
                self._next_id(),
                EmbeddingOutput(answer.value.tolist()),
                answer.token_ids,
                truncated=answer.truncated,
            )
            for answer in self._run(task_named("embed", self.engine.spec), as_items(prompts), call)
        ]

    def classify(
        self,
        prompts: Prompts,
        *,
        truncate_prompt_tokens: int | None = None,
        use_tqdm: UseTqdm = True,
        pooling_params: GivenParams = None,
        lora_request: object = None,
        tokenization_kwargs: Mapping[str, Any] | None = None,
    ) -> list[ClassificationRequestOutput]:
        """Return one probability vector a prompt."""
        call = _Call(
            pooling_params, use_tqdm, truncate_prompt_tokens, tokenization_kwargs, lora_request
        )
        return [
            ClassificationRequestOutput(
                self._next_id(),
                ClassificationOutput(answer.value.tolist()),
                answer.token_ids,
                truncated=answer.truncated,
            )
            for answer in self._run(Task.CLASSIFY, as_items(prompts), call)
        ]

    def score(
        self,
        data_1: str | Sequence[str],
        data_2: str | Sequence[str],
        /,
        *,
        truncate_prompt_tokens: int | None = None,
        use_tqdm: UseTqdm = True,
        pooling_params: GivenParams = None,
        lora_request: object = None,
        tokenization_kwargs: Mapping[str, Any] | None = None,
        chat_template: str | Path | None = None,
    ) -> list[ScoringRequestOutput]:
        """Return one score a pair: of 1 and 1, 1 and N, or N and N texts.

        ``chat_template`` (Jinja source, a file, or the name of a template that comes with poolc)
        makes the prompt of a pair instead of the model's own score template.

        Where an embedding model compares vectors, ``prompt_token_ids`` are those of both texts with
        the padding id between them, as in vLLM.
        """
        template = None if chat_template is None else template_text(chat_template, "chat_template")
        call = _Call(
            *(pooling_params, use_tqdm, truncate_prompt_tokens, tokenization_kwargs, lora_request),
            template,
        )
        pairs = as_pairs(as_texts(data_1, "data_1"), as_texts(data_2, "data_2"))
        return [
            ScoringRequestOutput(
                self._next_id(),
                ScoringOutput(float(answer.value)),
                answer.token_ids,
                truncated=answer.truncated,
            )
            for answer in self._run(Task.SCORE, pairs, call)
        ]

    def reward(
        self,
        prompts: Prompts,
        /,
        *,
        truncate_prompt_tokens: int | None = None,
        use_tqdm: UseTqdm = True,
        pooling_params: GivenParams = None,
        lora_request: object = None,
        tokenization_kwargs: Mapping[str, Any] | None = None,
    ) -> list[PoolingRequestOutput[PoolingOutput]]:
        """Return one array a prompt: its reward, or one row a token."""
        call = _Call(
            pooling_params, use_tqdm, truncate_prompt_tokens, tokenization_kwargs, lora_request
        )
        return self._pooled(self._run(Task.REWARD, as_items(prompts), call))

    def encode(
        self,
        prompts: Prompts,
        pooling_params: GivenParams = None,
        *,
        truncate_prompt_tokens: int | None = None,
        use_tqdm: UseTqdm = True,
        lora_request: object = None,
        pooling_task: str | None = None,
        tokenization_kwargs: Mapping[str, Any] | None = None,
    ) -> list[PoolingRequestOutput[PoolingOutput]]:
        """Return one array a prompt for any ``pooling_task``: embed, classify, score, reward,
        token_classify (one row of probabilities a token; of BGE-M3 one sparse weight a token,
        special tokens left out), token_embed or encode (the default).

        encode is what the model answers of every token: rewards of token and process reward models,
        as ``reward`` gives them, probabilities of token classifiers, and hidden states of others.
        token_embed is hidden states too; of embedding models they are cut to ``dimensions`` and
        normalised as ``embed`` does a vector, unless ``use_activation`` is False; of multi-vector
        models it gives every token's vector, without marker or expansion.
        """
        items = as_items(prompts)
        name = pooling_task or task_of(per_prompt(pooling_params, len(items))) or "encode"
        call = _Call(
            *(pooling_params, use_tqdm, truncate_prompt_tokens, tokenization_kwargs, lora_request),
            pooling_task=name,
        )
        return self._pooled(self._run(task_named(name, self.engine.spec), items, call))

    def close(self) -> None:
        """Release the model's memory; the object cannot be used afterwards."""
        self.engine.close()

    def _next_id(self) -> str:
        return str(next(self._request_ids))

    def _pooled(self, answers: Sequence[Answer]) -> list[PoolingRequestOutput[PoolingOutput]]:
        return [
            PoolingRequestOutput(
                self._next_id(),
                PoolingOutput(np.atleast_1d(answer.value)),
                answer.token_ids,
                truncated=answer.truncated,
            )
            for answer in answers
        ]

    def _run(self, task: Task, items: Sequence[Item], call: _Call) -> list[Answer]:
        if call.lora_request is not None:
            raise InvalidOption(
                "lora_request is not supported: merge the adapter into the model first",
                param="lora_request",
            )
        require(task, self.engine.spec)
        if task is Task.SCORE:
            check_score(self.engine.spec)
        check_items(items)
        params = self._params(task, per_prompt(call.pooling_params, len(items)), call)
        with in_own_words():
            return self._answered(task, items, params, call.use_tqdm)

    def _answered(
        self, task: Task, items: Sequence[Item], params: list[Params], use_tqdm: UseTqdm
    ) -> list[Answer]:
        if (
            len(next(windows(items, self.engine.window_chars), [])) < len(items)
            and len({*params}) == 1
        ):
            # One text that is too long must not cost the work of the windows before it.
            self.engine.check(task, items, params[0])
        answers: list[Answer] = []
        bar = progress_bar(use_tqdm, len(items))
        try:
            for part in self._windows(task, items, params):
                answers.extend(part)
                bar.update(len(part))
        finally:
            bar.close()
        return answers

    def _params(self, task: Task, given: Sequence[PoolingParams], call: _Call) -> list[Params]:
        base = shared_params(
            call.truncate_prompt_tokens, call.tokenization_kwargs, self._model.max_length
        )
        spec, like = self.engine.spec, task
        if task is Task.EMBED_TOKENS:
            base = replace(base, side=PLAIN)
        if task is Task.SCORE and (spec.kind is Kind.MULTI_VECTOR or spec.router):
            base = replace(base, prompt=None)  # markers and prompts of the sides of a model
        if task is Task.ENCODE and call.pooling_task == "token_embed" and is_dense(spec):
            like = Task.EMBED_TOKENS  # rows like the vector of the text
            base = replace(base, normalize=spec.normalize, dimensions=spec.default_dimensions)
        by_token = task is Task.EMBED_SPARSE and call.pooling_task == "token_classify"
        if by_token:
            like = Task.CLASSIFY_TOKENS
        base = replace(base, template=call.template, by_token=by_token)
        made: dict[PoolingParams, Params] = {}  # one object often stands for all prompts
        for index, params in enumerate(given):
            if params not in made:
                made[params] = request_params(like, params, base, self._model, index)
        return [made[params] for params in given]

    def _windows(
        self, task: Task, items: Sequence[Item], params: Sequence[Params]
    ) -> Iterator[list[Answer]]:
        """Yield answers window by window; the next window is tokenised while one runs."""
        pending: deque[tuple[list[Prepared], Work]] = deque()
        try:
            start = 0
            for window in windows(items, self.engine.window_chars):
                stop = start + len(window)
                parts = self._prepare(task, window, params[start:stop], start)
                start = stop
                # Requests that differ in parameters still share micro-batches.
                sequences = [sequence for part in parts for sequence in part.sequences]
                merged = replace(parts[0], sequences=sequences, pairs=None, windows=None)
                pending.append((parts, self.engine.submit(merged)))
                if len(pending) > _WINDOWS_IN_FLIGHT:
                    yield self._answers(*pending.popleft())
            while pending:
                yield self._answers(*pending.popleft())
        finally:
            for _, work in pending:  # after an error or an interrupt nothing runs on unseen
                work.cancel()

    def _prepare(
        self, task: Task, items: Sequence[Item], params: Sequence[Params], start: int
    ) -> list[Prepared]:
        parts: list[Prepared] = []
        done = 0
        for same, run in itertools.groupby(params):  # neighbours with equal parameters
            stop = done + sum(1 for _ in run)
            part = self.engine.prepare(task, items[done:stop], same, first_index=start + done)
            parts.append(part)
            done = stop
        return parts

    def _answers(self, parts: Sequence[Prepared], work: Work) -> list[Answer]:
        rows = iter(work.wait())
        answers: list[Answer] = []
        for part in parts:
            result = self.engine.finish(part, list(itertools.islice(rows, len(part.sequences))))
            ids = token_ids(part, self.engine.spec.pad_token_id)
            cut = part.truncated.tolist()
            answers += [Answer(*one) for one in zip(ids, cut, values(result), strict=True)]
        return answers


def _describe(name: str, engine: Engine, max_model_len: int | None) -> Model:
    longest = engine.max_length
    if max_model_len is not None and not 1 <= max_model_len <= longest:
        raise InvalidOption(
            f"max_model_len is {max_model_len}; this artifact takes 1 to {longest} tokens",
            param="max_model_len",
        )
    return Model(name, max_model_len or longest, engine.spec.matryoshka.enabled)
