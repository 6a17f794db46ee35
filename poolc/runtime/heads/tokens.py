"""Logits of tokens -> probabilities of tokens, labelled spans, rewards of tokens and of steps.

Spans are those of transformers' TokenClassificationPipeline (its token_classification.py of
version 5), special tokens and the label O left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from poolc.errors import InvalidOption
from poolc.runtime.outputs import Float32, Ragged, Span, activate
from poolc.runtime.request import Params, Prepared, Row, Spelling, TokenSequence
from poolc.spec import TOKEN_LOGITS, Activation, Kind, ModelSpec, Task

AGGREGATIONS = ("none", "simple", "first", "average", "max")
_OUTSIDE = "O"


def token_classes(
    spec: ModelSpec, prepared: Prepared, rows: Sequence[Row]
) -> Ragged | list[list[Span]]:
    """Return probabilities [len, labels] of each text, special tokens included, or its spans."""
    params = prepared.params
    if params.aggregation in (None, "none"):
        return Ragged.from_rows([_activated(spec, params, row[TOKEN_LOGITS]) for row in rows])
    if prepared.spelling is None:
        raise ValueError("spans need the tokens' spelling; this is a bug in poolc")
    return [
        _spans(spec, params.aggregation, sequence, prepared.spelling, row[TOKEN_LOGITS])
        for sequence, row in zip(prepared.sequences, rows, strict=True)
    ]


def token_rewards(spec: ModelSpec, prepared: Prepared, rows: Sequence[Row]) -> Ragged:
    """Return one row a token, or with steps one row a step tag: columns first, then activation."""
    params = prepared.params
    tag = params.step_tag_id
    if tag is None and spec.step is not None:
        tag = spec.step.tag_id
    columns = _columns(spec, params)
    rewards = []
    for sequence, row in zip(prepared.sequences, rows, strict=True):
        logits = row[TOKEN_LOGITS]
        if tag is not None:
            logits = logits[sequence.ids == tag]
        if columns is not None:
            logits = logits[:, columns]
        rewards.append(_activated(spec, params, logits))
    return Ragged.from_rows(rewards)


def check_token_params(spec: ModelSpec, task: Task, params: Params) -> None:
    """Refuse what the task or the model does not have. Raises InvalidOption."""
    for name in ("step_tag_id", "returned_token_ids"):
        headless = not spec.labels and name == "returned_token_ids"
        given = getattr(params, name) is not None
        if given and (task is not Task.REWARD or spec.kind is not Kind.REWARD or headless):
            raise InvalidOption(
                f"{name} selects rewards of tokens; this is {task} of a model of kind {spec.kind}"
                + (" without a head" if headless and spec.kind is Kind.REWARD else "")
                + ": leave it out",
                param=name,
            )
    _check_tag(spec, params.step_tag_id)
    if params.returned_token_ids is not None:
        _columns(spec, params)
    _check_aggregation(task, params)


def _check_tag(spec: ModelSpec, tag: object) -> None:
    if tag is None:
        return
    whole = isinstance(tag, int) and not isinstance(tag, bool)
    if not whole or not 0 <= tag < spec.vocab_size:  # type: ignore[operator]
        raise InvalidOption(
            f"step_tag_id is {tag!r}, which this model's vocabulary does not have; allowed: 0 to "
            f"{spec.vocab_size - 1}",
            param="step_tag_id",
        )


def _check_aggregation(task: Task, params: Params) -> None:
    if params.aggregation is None:
        return
    if task is not Task.CLASSIFY_TOKENS:
        raise InvalidOption(
            f"aggregation applies to classify_tokens, not to {task}", param="aggregation"
        )
    if params.aggregation not in AGGREGATIONS:
        raise InvalidOption(
            f"aggregation is {params.aggregation!r}; allowed: {', '.join(AGGREGATIONS)}",
            param="aggregation",
        )
    if params.aggregation != "none" and params.use_activation is False:
        raise InvalidOption(
            "use_activation=False gives logits of tokens, of which spans are not made: use "
            "aggregation='none'",
            param="use_activation",
        )


def _columns(spec: ModelSpec, params: Params) -> list[int] | None:
    """Return which columns of the logits are the reward; None: all of them."""
    # Of a language model they are the rows of its head that were compiled, by token id.
    known = spec.lm_head.token_ids if spec.lm_head else tuple(range(len(spec.labels)))
    asked = params.returned_token_ids
    if asked is None:
        return list(spec.step.columns) if spec.step and spec.step.columns else None
    if not asked or not set(asked) <= set(known):
        raise InvalidOption(
            f"returned_token_ids is {list(asked)}; this artifact computes the logits of: "
            f"{', '.join(map(str, known))}",
            param="returned_token_ids",
        )
    return [known.index(token) for token in asked]


def _activated(spec: ModelSpec, params: Params, logits: Float32) -> Float32:
    asked = params.use_activation
    if not (spec.use_activation if asked is None else asked):
        return logits
    kind = spec.activation or Activation.IDENTITY
    if kind is Activation.SOFTMAX and logits.shape[-1] == 1:
        # Of one selected column it would say 1 of everything: a sigmoid, as in vLLM.
        kind = Activation.SIGMOID
    return activate(logits, kind)


# Spans.


@dataclass(frozen=True, slots=True)
class _Piece:
    """A token, or with a strategy that looks at words a word, on its way into a span."""

    word: str
    scores: Float32  # [labels]; of a word [1], that of its label
    label: str
    start: int
    end: int
    is_subword: bool = False

    @property
    def score(self) -> np.float32:
        return np.float32(self.scores.max())


def _spans(
    spec: ModelSpec,
    strategy: str | None,
    sequence: TokenSequence,
    spelling: Spelling,
    logits: Float32,
) -> list[Span]:
    scores = activate(logits, spec.activation or Activation.SOFTMAX)
    pieces = _pieces(spec, sequence, spelling, scores)
    if strategy != "simple":
        choose = _STRATEGIES[str(strategy)]
        pieces = [_word(group, choose, spec, spelling) for group in _words(pieces)]
    spans = [_span(group, spelling) for group in _groups(pieces)]
    return [span for span in spans if span.entity_group != _OUTSIDE]


def _pieces(
    spec: ModelSpec, sequence: TokenSequence, spelling: Spelling, scores: Float32
) -> list[_Piece]:
    source = sequence.source
    if source is None:
        raise ValueError("spans need the texts behind the tokens; this is a bug in poolc")
    pieces = []
    for position in np.flatnonzero(~source.special).tolist():
        start, end = source.offsets[position].tolist()
        token = int(sequence.ids[position])
        word, written = spelling.piece(token), source.text[start:end]
        if spelling.marks_subwords:
            is_subword = len(word) != len(written)
        else:  # any piece that no space stands before continues a word
            is_subword = start > 0 and " " not in source.text[start - 1 : start + 1]
        if token == spec.unk_token_id:
            word, is_subword = written, False
        best = int(scores[position].argmax())
        pieces.append(_Piece(word, scores[position], spec.labels[best], start, end, is_subword))
    return pieces


def _words(pieces: Sequence[_Piece]) -> list[list[_Piece]]:
    words: list[list[_Piece]] = []
    for piece in pieces:
        if words and piece.is_subword:
            words[-1].append(piece)
        else:
            words.append([piece])
    return words


def _word(
    group: Sequence[_Piece],
    choose: Callable[[Sequence[_Piece]], Float32],
    spec: ModelSpec,
    spelling: Spelling,
) -> _Piece:
    """Give all pieces of a word one label."""
    scores = choose(group)
    best = int(scores.argmax())
    word = spelling.join([piece.word for piece in group])
    label = spec.labels[best]
    return _Piece(word, scores[best : best + 1], label, group[0].start, group[-1].end)


def _average(group: Sequence[_Piece]) -> Float32:
    return np.asarray(np.mean([piece.scores for piece in group], axis=0), np.float32)


_STRATEGIES: Mapping[str, Callable[[Sequence[_Piece]], Float32]] = {
    "first": lambda group: group[0].scores,
    "max": lambda group: max(group, key=lambda piece: piece.score).scores,
    "average": _average,
}


def _groups(pieces: Sequence[_Piece]) -> list[list[_Piece]]:
    """Join neighbours of one tag, except where a B- begins another span."""
    groups: list[list[_Piece]] = []
    for piece in pieces:
        begins, tag = _tag(piece.label)
        if groups and not begins and tag == _tag(groups[-1][-1].label)[1]:
            groups[-1].append(piece)
        else:
            groups.append([piece])
    return groups


def _tag(label: str) -> tuple[bool, str]:
    """Split a label into whether it begins a span, and its tag; without B- or I- it goes on."""
    return label.startswith("B-"), label[2:] if label.startswith(("B-", "I-")) else label


def _span(group: Sequence[_Piece], spelling: Spelling) -> Span:
    return Span(
        entity_group=group[0].label.split("-", 1)[-1],
        score=float(np.mean([piece.score for piece in group])),
        word=spelling.join([piece.word for piece in group]),
        start=group[0].start,
        end=group[-1].end,
    )
