"""``parity.safetensors``: the token ids and reference outputs that an artifact carries.

Format: for each output set that has a graph of its own, ``ids`` [tokens] and ``starts``
[texts + 1] (int64), what else the graph is told of each token where it is told anything
(``type_ids``, int64; ``attended`` and ``counted``, bool), and each output (float32): [texts, size],
or with a row for each token [rows, size], with ``NAME.starts`` where a text has fewer rows than
tokens. The main set's names stand alone, those of another have ``SET/`` before them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from poolc.errors import MissingDependency
from poolc.runtime.request import Row, TokenSequence
from poolc.spec import MAIN_SET, TOKEN_OUTPUTS

_IDS, _STARTS = "ids", "starts"
# What a graph is told of tokens beside their ids, and what is meant where it is not told.
_OF_TOKENS = {"type_ids": 0, "attended": True, "counted": True}
# Of a set besides the main one: rows of tokens are large, and short texts show as much.
_SHORT_TOKENS, _MOST_SHORT = 64, 16

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class References:
    """Sequences of an output set, and what the library makes of each."""

    output_set: str
    sequences: Sequence[TokenSequence]
    rows: Sequence[Row]


def packed(references: References) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of an output set."""
    chosen = _chosen(references)
    sequences = [references.sequences[place] for place in chosen]
    rows = [references.rows[place] for place in chosen]
    found: dict[str, npt.NDArray[Any]] = {
        _IDS: np.concatenate([sequence.ids for sequence in sequences]),
        _STARTS: _starts(sequences),
    }
    for name, otherwise in _OF_TOKENS.items():
        parts = [getattr(sequence, name) for sequence in sequences]
        if any(part is not None for part in parts):
            filled = [
                np.full(len(sequence), otherwise) if part is None else part
                for sequence, part in zip(sequences, parts, strict=True)
            ]
            found[name] = np.concatenate(filled)
    for name in rows[0]:
        values = [row[name] for row in rows]
        of_tokens = name in TOKEN_OUTPUTS
        join = np.concatenate if of_tokens else np.stack
        found[name] = np.ascontiguousarray(join(values), np.float32)
        if of_tokens and [len(one) for one in values] != [len(one) for one in sequences]:
            found[f"{name}.{_STARTS}"] = _starts(values)
    prefix = _prefix(references.output_set)
    return {f"{prefix}{name}": array for name, array in found.items()}


def unpacked(arrays: Arrays, output_set: str) -> References | None:
    """Return what ``packed`` was given; None for a set that there is nothing of."""
    prefix = _prefix(output_set)
    own = {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix) and "/" not in name.removeprefix(prefix)
    }
    if _IDS not in own:
        return None
    starts = own.pop(_STARTS)
    ids, told = own.pop(_IDS), {name: own.pop(name, None) for name in _OF_TOKENS}
    types, attended, counted = (told[name] for name in _OF_TOKENS)
    sequences = [
        TokenSequence(
            ids[piece],
            None if types is None else types[piece],
            attended=None if attended is None else attended[piece],
            counted=None if counted is None else counted[piece],
        )
        for piece in _pieces(starts)
    ]
    columns: dict[str, list[npt.NDArray[Any]]] = {}
    for name, array in own.items():
        if name.endswith(f".{_STARTS}"):
            continue
        columns[name] = list(array)
        if name in TOKEN_OUTPUTS:
            edges = own.get(f"{name}.{_STARTS}", starts)
            columns[name] = [array[piece] for piece in _pieces(edges)]
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return References(output_set, sequences, rows)


def read(path: os.PathLike[str]) -> Arrays:
    """Read the file. Raises MissingDependency without safetensors."""
    try:
        from safetensors.numpy import load_file
    except ImportError as error:
        raise MissingDependency(
            "the artifact has to be checked on this device before it serves, and safetensors is "
            'not installed: pip install "poolc[gpu]"'
        ) from error
    found: Arrays = load_file(path)
    return found


def _chosen(references: References) -> list[int]:
    """Return which texts are kept: all, but of rows of tokens in other sets some short ones and
    the longest."""
    lengths = [len(sequence) for sequence in references.sequences]
    everything = list(range(len(lengths)))
    if references.output_set == MAIN_SET or TOKEN_OUTPUTS.isdisjoint(references.rows[0]):
        return everything
    short = [place for place in everything if lengths[place] <= _SHORT_TOKENS][:_MOST_SHORT]
    return sorted({*short, max(everything, key=lengths.__getitem__)})


def _prefix(output_set: str) -> str:
    return "" if output_set == MAIN_SET else f"{output_set}/"


def _starts(parts: Sequence[Any]) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)


def _pieces(starts: npt.NDArray[np.int64]) -> Iterator[slice]:
    return (slice(a, b) for a, b in pairwise(starts.tolist()))
