"""Ray Serve: a deployment whose replicas answer as ``poolc serve`` does, every dialect of it.

Ray Serve owns processes, ports, replicas and updates; the application is ``serve/app.py``'s.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from poolc import api
from poolc.cluster.library import import_ray, own_cores
from poolc.errors import InvalidOption, nearest
from poolc.runtime.cores import limit_cores
from poolc.serve.app import create_app
from poolc.serve.registry import Registry, check_names
from poolc.serve.settings import Settings

NAME = "poolc"
# What the proxy lets a replica have at once. A model's own queue decides what waits and what is
# refused; with Ray Serve's 5 there would be nothing to batch.
_MOST_ONGOING = 256
# What Ray Serve does instead, and by which of its settings.
_ELSEWHERE = {
    "host": "http_options",
    "port": "http_options",
    "uds": "http_options",
    "root_path": "route_prefix",
    "ssl_certfile": "http_options",
    "ssl_keyfile": "http_options",
    "workers": "num_replicas",
    "admin": "another deployment",
    "drain_timeout_s": "graceful_shutdown_timeout_s",
    "log_level": "logging_config",
    "log_format": "logging_config",
}
_SETTINGS = tuple(f.name for f in fields(Settings) if f.name not in _ELSEWHERE)
_LISTS = ("api_keys", "served_model_names", "allowed_origins")


@dataclass(frozen=True, slots=True)
class Serving:
    """What a replica serves: models, settings, and options of ``poolc.load``."""

    models: tuple[str, ...]
    settings: Settings = field(default_factory=Settings)
    options: Mapping[str, Any] = field(default_factory=dict)


class Replica:
    """One process of the deployment: loaded models behind the application."""

    def __init__(self, serving: Serving) -> None:
        cores = own_cores()
        if cores is not None:
            limit_cores(cores)
        self._engines = {model: api.load(model, **serving.options) for model in serving.models}
        self.asgi = create_app(self._engines, serving.settings)

    async def check_health(self) -> None:
        """Raise where a model does not answer, so that Ray Serve replaces this replica."""
        registry: Registry = self.asgi.state.registry
        for model in registry.models:
            await model.scheduler.probe()

    def __del__(self) -> None:
        for engine in getattr(self, "_engines", {}).values():
            engine.close()


class _Asgi:
    """The application of the replica that it is called in: engines cannot be sent to one."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if (
            scope["type"] == "lifespan"
        ):  # before there is a replica; the application has nothing to do
            for _ in range(2):
                event = (await receive())["type"]
                await send({"type": f"{event}.complete"})
            return
        replica = import_ray("serve").get_replica_context().servable_object
        await replica.asgi(scope, receive, send)


def app(args: Mapping[str, Any]) -> Any:
    """Return the application of Ray Serve that serves models; the ``import_path`` of its config.

    ``args``: ``models`` (artifacts, folders or hub ids, as replicas find them), settings of
    ``poolc serve`` (``api_keys``, ``served_model_names``, ``max_queue_s``, ...), options of
    ``poolc.load`` (``memory_limit``, ...), and ``deployment``, what ``serve.deployment`` takes
    (``num_replicas``, ``autoscaling_config``, ``ray_actor_options``, ...).

    Raises InvalidOption for what is neither, or is Ray Serve's to say; MissingDependency without
    Ray Serve.
    """
    serve = import_ray("serve", "serving on Ray")
    given = dict(args)
    deployment = {"name": NAME, "max_ongoing_requests": _MOST_ONGOING}
    deployment |= given.pop("deployment", None) or {}
    serving = serving_of(given)
    made = serve.deployment(**deployment)(serve.ingress(_Asgi())(Replica))
    return made.bind(serving)


def serving_of(given: Mapping[str, Any]) -> Serving:
    """Return what keywords describe. Raises InvalidOption."""
    for name in given:
        if name in _ELSEWHERE:
            raise InvalidOption(
                f"{name} is not for poolc to say on Ray Serve: use its {_ELSEWHERE[name]}",
                param=name,
            )
    models = given.get("models") or ()
    models = (models,) if isinstance(models, str) else tuple(dict.fromkeys(map(str, models)))
    settings = {name: _typed(name, given[name]) for name in _SETTINGS if name in given}
    for name in _LISTS:
        if name in settings:
            value = settings[name]
            settings[name] = (value,) if isinstance(value, str) else tuple(value)
    settings.setdefault("access_log", False)  # Ray Serve has its own
    options = {n: v for n, v in given.items() if n not in (*_SETTINGS, "models")}
    _check(options)
    check_names(models, settings.get("served_model_names", ()))
    return Serving(models, Settings(**settings), options)


def _typed(name: str, value: Any) -> Any:
    """Return a setting that the command line of Ray Serve gave as text as what it is."""
    texts = (*_LISTS, "token_ids", "cl100k_file")
    if not isinstance(value, str) or name in texts:
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        raise InvalidOption(
            f"{name} is {value!r}; allowed: a number, true or false", param=name
        ) from None


def _check(options: Mapping[str, Any]) -> None:
    """Refuse options that neither loading nor compiling has, before any replica begins."""
    compiling = {name: v for name, v in options.items() if name not in api.LOADING}
    try:
        api.make_options(**compiling)
    except InvalidOption as error:
        if error.param in compiling and "no option" in str(error):
            known = (*_SETTINGS, *api.LOADING, "models", "deployment")
            said = nearest(str(error.param), known)
            raise InvalidOption(
                f"there is no option {error.param!r}; {said}", param=error.param
            ) from None
        raise
