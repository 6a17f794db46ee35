"""``poolc serve``: the HTTP server over one or more models."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, cast, get_args

import typer

from poolc.cli.groups import grouped
from poolc.cli.options import CompileArguments, MemoryLimit
from poolc.cli.reporting import Reporter
from poolc.errors import InvalidOption, MissingDependency

Models = Annotated[
    list[str], typer.Argument(metavar="MODEL", help="Artifacts, model folders or hub ids.")
]

# Modules that only the serve extra installs.
_EXTRA = ("fastapi", "pydantic", "starlette", "uvicorn")


@dataclass(frozen=True, slots=True)
class ServeArguments:
    """Where and how to serve; the defaults are those of ``poolc.serve.settings``."""

    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8000
    served_model_name: Annotated[
        list[str],
        typer.Option(
            help="Name in requests and replies; repeat it for more. With several models, one each.",
            show_default=False,
        ),
    ] = field(default_factory=list)
    strict_model_name: Annotated[
        bool,
        typer.Option("--strict-model-name", help="With one model: refuse any other name."),
    ] = False
    max_queued_tokens: Annotated[
        int, typer.Option(help="Tokens that may wait, a model; beyond it requests get 429.")
    ] = 1 << 20
    max_items: Annotated[int, typer.Option(help="Most texts in a request.")] = 16_384
    max_body_bytes: Annotated[int, typer.Option(help="Longest request body.")] = 16 << 20
    drain_timeout: Annotated[
        float, typer.Option(help="Seconds to finish what was begun when asked to stop.")
    ] = 30.0
    log_level: Annotated[str, typer.Option(help="critical, error, warning, info or debug.")] = (
        "info"
    )
    access_log: Annotated[bool, typer.Option(help="Log every request.")] = True


@grouped
def serve(
    models: Models,
    *,
    serving: ServeArguments,
    memory_limit: MemoryLimit = None,
    compiling: CompileArguments,
) -> None:
    """Serve models over HTTP."""
    from poolc.serve.settings import LogLevel, Settings

    try:
        from poolc.serve.server import serve as run_server
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        raise MissingDependency(
            f'serving needs {error.name}, which is not installed: pip install "poolc[serve]"'
        ) from error
    if serving.log_level not in get_args(LogLevel):
        raise InvalidOption(
            f"--log-level is {serving.log_level!r}; allowed: {', '.join(get_args(LogLevel))}",
            param="log_level",
        )
    settings = Settings(
        host=serving.host,
        port=serving.port,
        served_model_names=tuple(serving.served_model_name),
        strict_model_name=serving.strict_model_name,
        drain_timeout_s=serving.drain_timeout,
        max_queued_tokens=serving.max_queued_tokens,
        max_items=serving.max_items,
        max_body_bytes=serving.max_body_bytes,
        log_level=cast("LogLevel", serving.log_level),
        access_log=serving.access_log,
    )
    options = compiling.given()
    if memory_limit is not None:
        options["memory_limit"] = memory_limit
    with Reporter() as on_event:
        run_server(models, settings, on_event=on_event, **options)
