"""Two models on the same texts: opened, checked against each other, asked, compared.

    compare("minilm-int8", "sentence-transformers/all-MiniLM-L6-v2", "texts.jsonl")

A name that is an artifact runs on its runtime; any other is a model, which its own library runs.
Vectors lie on the disk meanwhile: memory is that of the texts.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from poolc import api
from poolc.compare import figures
from poolc.compare.checks import both_embed, common_task
from poolc.compare.data import Data, read
from poolc.compare.result import Answers, Comparison, Vectors, shown
from poolc.compare.sides import Asked, EngineSide, Side
from poolc.compare.speed import Speed, measure
from poolc.errors import InvalidOption
from poolc.model_cache.artifact import is_artifact
from poolc.model_cache.store import Store
from poolc.runtime.bulk import Columns
from poolc.runtime.outputs import Float32
from poolc.runtime.quality import ACCURACY, SPEARMAN, accuracy
from poolc.runtime.request import Item
from poolc.spec import Task

OnEvent = Callable[[dict[str, Any]], None]
_SHOWN = 10  # texts that differ most


@dataclass(frozen=True, slots=True)
class Settings:
    """How models are compared. ``dimensions``: vectors of both are cut to so many numbers.

    ``queries`` texts, sampled by ``seed``, are those whose ``neighbours`` nearest are compared;
    ``timed`` items run for about ``seconds`` seconds (0: speed is not measured). ``limit``: only so
    many rows are read. ``label``: which label a score is, where a model has several.
    """

    dimensions: int | None = None
    queries: int = 500
    neighbours: int = 10
    seed: int = 0
    timed: int = 256
    seconds: float = 10.0
    limit: int | None = None
    label: str | None = None
    columns: Columns = field(default_factory=Columns)

    def __post_init__(self) -> None:
        for name in ("queries", "neighbours", "timed"):
            if getattr(self, name) < 1:
                given = getattr(self, name)
                raise InvalidOption(f"{name} is {given}; allowed: 1 or more", param=name)
        if self.limit is not None and self.limit < 1:
            raise InvalidOption(f"limit is {self.limit}; allowed: 1 or more", param="limit")
        if self.seconds < 0:
            raise InvalidOption(f"seconds is {self.seconds}; allowed: 0 or more", param="seconds")


def compare(
    first: str | Path,
    second: str | Path,
    data: str | Path,
    settings: Settings | None = None,
    *,
    loading: Mapping[str, Any] | None = None,
    compiling: Mapping[str, Any] | None = None,
    on_event: OnEvent | None = None,
) -> Comparison:
    """Compare two models on the texts of a file: numbers, neighbours, labels, quality, speed.

    ``loading`` are options of ``poolc.load`` for artifacts, ``compiling`` those of
    ``poolc.compile`` that say what an original model is (``revision``, ``pooler_config``, ...).
    Raises UnsupportedTask for models of different tasks, InvalidDimensions for vectors of different
    sizes, InvalidOption and InputError for options and files that cannot be used, and what loading
    raises.
    """
    settings = settings or Settings()
    rows = read(data, settings.columns, settings.limit)
    listener = on_event or (lambda event: None)
    with ExitStack() as stack:
        sides: list[Side] = []
        for name in (first, second):
            side = _opened(str(name), loading or {}, compiling or {}, listener)
            stack.callback(side.close)
            sides.append(side)
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="poolc-compare-")))
        return _Run(sides, rows, settings, work, listener).result()


def _opened(
    name: str, loading: Mapping[str, Any], compiling: Mapping[str, Any], on_event: OnEvent
) -> Side:
    if is_artifact(Path(name).expanduser()):
        return EngineSide(name, api.load(name, on_event=on_event, **loading))
    from poolc.compare.original import OriginalSide

    return OriginalSide(name, api.make_options(**compiling), Store.default(), on_event)


class _Run:
    """One comparison."""

    def __init__(
        self, sides: Sequence[Side], data: Data, settings: Settings, work: Path, on_event: OnEvent
    ) -> None:
        self._sides, self._data, self._settings = sides, data, settings
        self._work, self._on_event = work, on_event
        self._items: Sequence[Item] = data.pairs or data.texts
        limits = [side.longest for side in sides if side.longest is not None]
        self._max_length = min(limits, default=None)

    def result(self) -> Comparison:
        settings = self._settings
        task = common_task(
            self._sides, pairs=bool(self._data.pairs), dimensions=settings.dimensions
        )
        vectors = self._vectors() if both_embed(self._sides) else None
        answers = None if task is Task.EMBED else self._answers(task)
        timed = self._speed(task) if settings.seconds else None
        first, second = (side.identity for side in self._sides)
        return Comparison(
            task=task,
            file=self._data.file,
            num_rows=self._data.num_rows,
            max_length=self._max_length,
            seed=settings.seed,
            sides=(first, second),
            vectors=vectors,
            answers=answers,
            speed=timed,
        )

    def _asked(self, task: Task) -> Asked:
        embeds = task in (Task.EMBED, Task.SCORE) and both_embed(self._sides)
        label = self._settings.label if task is Task.SCORE and not embeds else None
        dimensions = self._settings.dimensions if embeds else None
        return Asked(task, dimensions, label, self._max_length)

    def _vectors(self) -> Vectors:
        """Compare the vectors of all distinct texts, those of pairs too."""
        given = (text for pair in self._data.pairs for text in pair)
        texts = list(dict.fromkeys(given if self._data.pairs else self._data.texts))
        first, second = (self._collected(i, self._asked(Task.EMBED), texts) for i in (0, 1))
        settings, (kind, other) = self._settings, (side.spec.similarity for side in self._sides)
        with _stage(self._on_event, "neighbours"):
            distances = figures.distances(first, second)
            queries = figures.sample(len(texts), settings.queries, settings.seed)
            near = figures.neighbours((first, second), (kind, other), queries, settings.neighbours)
        chosen = figures.worst(distances.cosines, _SHOWN, lowest=True)
        worst = [(shown(texts[i]), float(distances.cosines[i])) for i in chosen]
        return Vectors(first.shape[1], len(texts), distances, near, worst)

    def _answers(self, task: Task) -> Answers:
        """Compare scores, rewards or probabilities of every row."""
        asked = self._asked(task)
        first, second = (np.array(self._collected(i, asked, self._items)) for i in (0, 1))
        differences = np.abs(first.astype(np.float64) - second).max(axis=1)
        chosen = figures.worst(differences, _SHOWN, lowest=False)
        metric = self._metric(task)
        return Answers(
            values=(first, second),
            differences=differences,
            labels=self._sides[0].spec.labels if task is Task.CLASSIFY else (),
            metric=metric,
            quality=None if metric is None else self._quality(metric, first, second),
            worst=[(shown(self._items[i]), float(differences[i])) for i in chosen],
        )

    def _metric(self, task: Task) -> str | None:
        if self._data.labels is None:
            return None
        return {Task.SCORE: SPEARMAN, Task.CLASSIFY: ACCURACY}.get(task)

    def _quality(self, metric: str, *values: Float32) -> tuple[float, float]:
        """Return the task metric of both."""
        known, names = self._data.labels or [], self._sides[0].spec.labels
        if metric == ACCURACY:
            first, second = (accuracy(rows, known, names) for rows in values)
        else:
            numbers = _numbers(known)
            first, second = (100 * figures.correlation(rows[:, 0], numbers) for rows in values)
        return first, second

    def _speed(self, task: Task) -> Speed:
        chosen = figures.sample(len(self._items), self._settings.timed, self._settings.seed)
        items = [self._items[i] for i in chosen.tolist()]
        with _stage(self._on_event, "speed"):
            return measure(self._sides, self._asked(task), items, self._settings.seconds)

    def _collected(self, which: int, asked: Asked, items: Sequence[Item]) -> Float32:
        """Return the answers of one side [n, width], in a file that is read when it is needed."""
        rows: Float32 | None = None
        done = 0
        with _stage(self._on_event, f"{asked.task} {'AB'[which]}"):
            for window in self._sides[which].answers(asked, items):
                if rows is None:
                    shape = (len(items), window.shape[1])
                    path = self._work / f"{which}-{asked.task}.npy"
                    rows = np.lib.format.open_memmap(path, "w+", np.float32, shape)
                rows[done : done + len(window)] = window
                done += len(window)
        if rows is None or done != len(items):
            raise AssertionError("a side answered too few items; this is a bug in poolc")
        return rows


@contextmanager
def _stage(on_event: OnEvent, name: str) -> Iterator[None]:
    """Announce a stage and its time, as the compiler does."""
    on_event({"event": "stage", "name": name, "status": "start"})
    start = time.perf_counter()
    yield
    took = round(time.perf_counter() - start, 3)
    on_event({"event": "stage", "name": name, "status": "done", "seconds": took})


def _numbers(labels: Sequence[Any]) -> npt.NDArray[np.float64]:
    try:
        return np.array([float(label) for label in labels])
    except (TypeError, ValueError):
        raise InvalidOption(
            "the column score holds what is no number: correct the file, or name the column "
            "otherwise to compare without a task metric",
            param="data",
        ) from None
