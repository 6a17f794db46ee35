"""Classes for ``map_batches`` of Ray Data: answers as columns beside those of the data set.

For pipelines of one's own; files in, files out, with a ledger, is ``jobs.py``. Ray is asked only
for the cores of an actor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from poolc import api
from poolc.cluster.library import own_cores
from poolc.errors import InvalidOption, InvalidText
from poolc.runtime.bulk.answers import Column, columns_of, shown_span
from poolc.runtime.bulk.arrow import Tables
from poolc.runtime.bulk.columns import Columns, RowReader
from poolc.runtime.bulk.destination import STDOUT
from poolc.runtime.bulk.job import BulkJob, check_engine, job_for_model
from poolc.runtime.cores import limit_cores
from poolc.runtime.outputs import Ragged
from poolc.runtime.request import Params
from poolc.runtime.sparse import SparseVectors
from poolc.spec import Task

_PARAMS = tuple(f.name for f in fields(Params))


class _Answering:
    """A loaded model as a function of batches.

    Batches are dicts of NumPy arrays (Ray Data's default) or Arrow tables (batch_format="pyarrow");
    what comes back has the batch's columns and the answer's. Rows that cannot be processed raise
    InputError.
    """

    task: ClassVar[Task]
    pairs: ClassVar[bool] = False

    def __init__(
        self,
        model: str | Path,
        *,
        text_column: str = "text",
        left_column: str | None = None,
        right_column: str | None = None,
        output_column: str | None = None,
        **options: Any,
    ) -> None:
        """Load a model, on as many cores as Ray gave this actor.

        ``text_column`` is a column or a template, "{title}: {body}"; ``left_column`` and
        ``right_column`` are those of pairs. ``output_column`` renames the answer. ``options`` are
        fields of ``Params`` (dimensions, truncate, ...), the others those of ``poolc.load``.

        Raises as ``poolc.load`` does, and InvalidOption for what the model does not have.
        """
        cores = own_cores()
        if cores is not None:
            limit_cores(cores)
        params = Params(**{name: v for name, v in options.items() if name in _PARAMS})
        loading = {name: v for name, v in options.items() if name not in _PARAMS}
        columns = Columns(text_column, left_column, right_column)
        self._engine = api.load(model, **loading)
        job = job_for_model(self._engine, BulkJob(self.task, (), STDOUT, columns, params))
        check_engine(self._engine, job)
        self._job = job
        self._reader = RowReader(columns, pairs=job.of_pairs)
        self._output_column = output_column

    def __call__(self, batch: Any) -> Any:
        """Return a batch with the answers of its rows. Raises InputError, which names the row."""
        if isinstance(batch, Mapping):
            columns = {name: np.asarray(values).tolist() for name, values in self._needed(batch)}
            return {**batch, **{n: _array(c) for n, c in self._answers(columns).items()}}
        if not hasattr(batch, "column_names"):
            raise InvalidOption(
                f"a batch is {type(batch).__name__}; allowed: dicts of arrays, and Arrow tables "
                '(batch_format="numpy" or "pyarrow")',
                param="batch_format",
            )
        given = {name: batch.column(name) for name in batch.column_names}
        columns = {name: values.to_pylist() for name, values in self._needed(given)}
        tables = Tables(self._job.columns)
        for name, column in self._answers(columns).items():
            values = tables.values(column.values)
            present = name in batch.column_names
            at = batch.column_names.index(name) if present else 0
            batch = (
                batch.set_column(at, name, values) if present else batch.append_column(name, values)
            )
        return batch

    def _needed(self, given: Mapping[str, Any]) -> list[tuple[str, Any]]:
        names = self._reader.names(list(given))
        return [(name, given[name]) for name in (given if names is None else names)]

    def _answers(self, columns: Mapping[str, list[Any]]) -> dict[str, Column]:
        """Return the answers of rows, by the names of their columns."""
        names = list(columns)
        rows = [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        job, items = self._job, []
        for index, row in enumerate(rows):
            try:
                items.append(self._reader.text(row))
            except InvalidText as error:
                raise InvalidText(f"row {index} of the batch: {error}", index=index) from None
        results = self._engine.run(job.task, items, job.params)
        found = columns_of(self._engine.spec, job.task, job.params, results)
        named = {column.name: column for column in found}
        if self._output_column is not None:
            *others, last = named.values()
            named = {column.name: column for column in others} | {self._output_column: last}
        return named


class Embedder(_Answering):
    """Embeds texts, to whatever the model embeds to: the column ``embedding``."""

    task = Task.EMBED


class Classifier(_Answering):
    """Classifies texts or pairs: ``label`` and ``probs`` (or ``logits``); of tokens ``spans``."""

    task = Task.CLASSIFY


class Scorer(_Answering):
    """Scores pairs of texts: the column ``score``."""

    task = Task.SCORE


class Rewarder(_Answering):
    """Rewards texts, their tokens or their steps, as the model does: the column ``reward``."""

    task = Task.REWARD


class Encoder(_Answering):
    """Gives the last hidden states of texts, one row a token: the column ``token_embeddings``."""

    task = Task.ENCODE


def _array(column: Column) -> Any:
    """Return a column as Ray Data's batches hold it: an array, of objects where rows differ."""
    values: Any = column.values
    if isinstance(values, np.ndarray):
        return values
    if isinstance(values, SparseVectors):
        values = [{"indices": row.indices, "values": row.values} for row in values]
    elif not isinstance(values, Ragged):
        values = [[shown_span(s) for s in row] if isinstance(row, list) else row for row in values]
    rows = list(values)
    found = np.empty(len(rows), object)
    for at, row in enumerate(rows):
        found[at] = row
    return found
