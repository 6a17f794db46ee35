"""Which model answers to which name. Knows nothing about HTTP or how a model runs."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from poolc.errors import InvalidOption, Overloaded
from poolc.runtime.engine import Engine
from poolc.serve.errors import BadBody, NameTaken, UnknownModel
from poolc.serve.scheduler import Scheduler
from poolc.serve.settings import Settings
from poolc.spec import Kind, ModelSpec, Task

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Served:
    """A model behind its names; the first one is shown where a request used none of them."""

    names: tuple[str, ...]
    engine: Engine
    scheduler: Scheduler
    model_bytes: int  # read once: the folder may be gone when somebody asks

    def shown_name(self, asked: str | None) -> str:
        """Return the name that a reply to a request for ``asked`` shows."""
        return asked if asked is not None and asked in self.names else self.names[0]


class Registry:
    """The models of one server, in the order in which they came.

    ``models`` is replaced as a whole, so that who iterates over it sees one state.
    """

    def __init__(self, engines: Mapping[str, Engine], settings: Settings) -> None:
        """``engines`` maps what the operator called each model to its engine.

        Raises InvalidOption for no engine, or names that do not fit them.
        """
        names = _names(engines, settings.served_model_names)
        self._settings = settings
        # Told what only another process can have again: see ``Scheduler.on_lost``.
        self.on_lost: Callable[[str], None] = log.critical
        self.models = tuple(self._served(names[given], engine) for given, engine in engines.items())
        self._index()

    def made(self, given: str, engine: Engine, names: Sequence[str]) -> Served:
        """Return a model that is not served yet, under ``names`` or what it was called.

        Raises NameTaken where a name is another model's.
        """
        source = engine.artifact.manifest.source.id
        other = () if source == given or source in self._by_name else (source,)
        chosen = tuple(names) or (given, *other)
        self.check_free(chosen)
        return self._served(chosen, engine)

    def _served(self, names: tuple[str, ...], engine: Engine) -> Served:
        size = sum(engine.artifact.sizes().values())
        return Served(names, engine, self._scheduler(engine), size)

    def _scheduler(self, engine: Engine) -> Scheduler:
        made = Scheduler(engine, self._settings)
        made.on_lost = lambda what: self.on_lost(what)
        return made

    def check_free(self, names: Sequence[str]) -> None:
        """Raise NameTaken for a name that a model answers to."""
        for name in names:
            if name in self._by_name:
                raise NameTaken(f"a model answers to {name!r} already: choose another name")

    def add(self, model: Served) -> None:
        """Serve a model. Raises NameTaken."""
        self.check_free(model.names)
        self.models = (*self.models, model)
        self._index()

    def remove(self, name: str) -> Served:
        """Serve a model no more, under all its names; what it was asked goes on.

        Raises UnknownModel, and NameTaken for the last model: a server answers for one at least.
        """
        model = self.named(name)
        if len(self.models) == 1:
            raise NameTaken(f"{name!r} is the only model: add another one first, or stop")
        self.models = tuple(one for one in self.models if one is not model)
        self._index()
        return model

    def _index(self) -> None:
        self._by_name = {name: model for model in self.models for name in model.names}
        self._any_name = len(self.models) == 1 and not self._settings.strict_model_name

    def find(self, name: str | None) -> Served:
        """Return the model that answers to ``name``. Raises UnknownModel, BadBody for no name."""
        if self._any_name:
            return self.models[0]
        if not name:
            raise BadBody(f"model is missing; allowed: {self._allowed()}", param="model")
        return self.named(name)

    def fit(self, name: str | None, *tasks: Task) -> Served:
        """Return the model that answers to ``name``; without one the first that does a task.

        What is made for the task goes before what merely can: see ``_rank``. For dialects that name
        no model. Raises UnknownModel, UnsupportedTask where none does.
        """
        if name:
            return self.find(name)
        able = [one for one in self.models if not {*tasks}.isdisjoint(one.engine.spec.tasks)]
        if not able:
            self.models[0].engine.require(tasks[0])
        # Of equals, min returns the first.
        return min(able, key=lambda model: _rank(model.engine.spec, tasks))

    def named(self, name: str) -> Served:
        """Return the model of exactly this name. Raises UnknownModel."""
        if name not in self._by_name:
            raise UnknownModel(f"The model `{name}` does not exist.", param="model")
        return self._by_name[name]

    def gauges(self) -> dict[str, dict[str, float]]:
        """Return what is true of each model now, by its first name."""
        return {
            model.names[0]: {
                **model.scheduler.gauges(),
                "model_bytes": float(model.model_bytes),
                "model_cpu_seconds": model.engine.model_cpu_s,
            }
            for model in self.models
        }

    def is_full(self) -> bool:
        """Return whether ``overloaded`` has a reason, without making it."""
        return all(model.scheduler.admission.is_full() for model in self.models)

    def overloaded(self) -> Overloaded | None:
        """Return why any request would be refused now; None where some model may take one."""
        errors = [model.scheduler.admission.overloaded() for model in self.models]
        return None if None in errors else errors[0]

    def event_loop_is_behind(self, seconds: float) -> None:
        """Note how late the event loop comes to what it has to do."""
        for model in self.models:
            model.scheduler.admission.behind_s = seconds

    async def drain(self, timeout_s: float) -> bool:
        """Stop admission and finish what was let in; see ``Scheduler.drain``."""
        drained = await asyncio.gather(*(m.scheduler.drain(timeout_s) for m in self.models))
        return all(drained)

    def _allowed(self) -> str:
        return ", ".join(self._by_name)


def _rank(spec: ModelSpec, tasks: Collection[Task]) -> int:
    """Return how far a model is from being made for one of the tasks; 0: it is."""
    return min(_distance(spec, task) for task in tasks if task in spec.tasks)


def _distance(spec: ModelSpec, task: Task) -> int:
    if task is Task.CLASSIFY:
        return int(len(spec.labels) == 1)  # a reranker: its one label tells nothing apart
    if task is not Task.SCORE:
        return 0
    if spec.kind is Kind.CLASSIFIER:
        return 0 if len(spec.labels) == 1 else 3  # of several labels a request names one
    return 1 if spec.kind is Kind.MULTI_VECTOR else 2


def check_names(models: Collection[str], chosen: Sequence[str]) -> None:
    """Raise InvalidOption where there is no model, or the names chosen do not fit the models."""
    if not models:
        raise InvalidOption("no model was given: name at least one")
    if chosen and len(models) > 1 and len(chosen) != len(models):
        raise InvalidOption(
            f"{len(chosen)} served model names for {len(models)} models; allowed: one each",
            param="served_model_names",
        )


def _names(engines: Mapping[str, Engine], chosen: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Return the names of each model: as chosen, else what it was called and its source's id."""
    check_names(engines, chosen)
    if chosen and len(engines) == 1:
        return dict.fromkeys(engines, chosen)
    if chosen:
        return {given: (name,) for given, name in zip(engines, chosen, strict=True)}
    sources = {given: engine.artifact.manifest.source.id for given, engine in engines.items()}
    taken = Counter((*sources.values(), *engines))
    # A name that would mean two models means neither.
    return {
        given: (given,) if source == given or taken[source] > 1 else (given, source)
        for given, source in sources.items()
    }
