"""Models that come and go while the server runs. There only with ``--admin``.

A model is loaded beside those that answer, has to answer itself, and only then gets requests. One
that goes gets none any more, finishes what it was asked, and leaves the memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fastapi import APIRouter, Request

from poolc.errors import PoolcError
from poolc.runtime.engine import Engine
from poolc.serve.asking import body_of, documented, errors_of, registry_of
from poolc.serve.errors import CannotLoad
from poolc.serve.registry import Served
from poolc.serve.schemas.admin import AddRequest, Removed, ServedModel, ServedModels
from poolc.serve.schemas.common import ErrorReply

router = APIRouter(tags=["admin"])

Load = Callable[[str], Engine]
"""Loads an artifact, folder or hub id, with the options that the server was started with."""


@router.get("/admin/models")
async def models(request: Request) -> ServedModels:
    """List the models that answer."""
    return ServedModels(models=[_shown(model) for model in registry_of(request).models])


@router.post(
    "/admin/models",
    status_code=201,
    **documented(AddRequest, also=errors_of(ErrorReply, (409,))),
)
async def add(request: Request) -> ServedModel:
    """Load a model, compiling it first where that is needed, and serve it once it answers.

    One is loaded after the other. 409: the name is another model's; 400: it cannot be loaded.
    """
    asked = await body_of(request, AddRequest)
    state, registry = request.app.state, registry_of(request)
    async with state.loading:
        registry.check_free(asked.names or [asked.model])
        load: Load = state.load
        try:
            engine = await asyncio.to_thread(load, asked.model)
        except PoolcError as error:
            raise CannotLoad(f"{asked.model} cannot be loaded: {error}", param="model") from error
        try:
            model = registry.made(asked.model, engine, asked.names)
            model.scheduler.watch = state.metrics.watch(model.names[0])
            await model.scheduler.probe()
            registry.add(model)
        except PoolcError as error:
            await asyncio.to_thread(engine.close)
            raise CannotLoad(f"{asked.model} does not answer: {error}", param="model") from error
    return _shown(model)


@router.delete("/admin/models/{name:path}", responses=errors_of(ErrorReply, (401, 404, 409)))
async def remove(request: Request, name: str) -> Removed:
    """Serve a model no more; return once it has finished what it was asked, or time was up.

    409: it is the last one.
    """
    model = registry_of(request).remove(name)
    drained = await model.scheduler.drain(request.app.state.settings.drain_timeout_s)
    await asyncio.to_thread(model.engine.close)
    return Removed(names=list(model.names), finished=drained)


def _shown(model: Served) -> ServedModel:
    artifact, spec = model.engine.artifact, model.engine.spec
    return ServedModel(
        names=list(model.names),
        artifact=artifact.artifact_id,
        space=artifact.space_id,
        tasks=[str(task) for task in spec.tasks],
        max_model_len=spec.max_length,
    )
