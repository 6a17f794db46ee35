"""``poolc serve``: the HTTP server over one or more models."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from poolc.cli.config_file import take_config
from poolc.cli.groups import grouped
from poolc.cli.options import CompileArguments, LoadArguments
from poolc.cli.reporting import Reporter
from poolc.errors import InputError, InvalidOption, MissingDependency

if TYPE_CHECKING:
    from poolc.serve.settings import LogFormat, LogLevel, Settings, TokenIdPolicy

Models = Annotated[
    list[str], typer.Argument(metavar="MODEL", help="Artifacts, model folders or hub ids.")
]

Config = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        is_eager=True,
        callback=take_config,
        help="YAML file of these options, e.g. port: 81. The command line goes before variables "
        "of the environment (POOLC_PORT), and those before the file.",
    ),
]

# Modules that only the serve extra installs.
_EXTRA = ("fastapi", "prometheus_client", "pydantic", "starlette", "uvicorn")


@dataclass(frozen=True, slots=True)
class ServeArguments:
    """Where and how to serve; the defaults are those of ``poolc.serve.settings``."""

    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8000
    uds: Annotated[
        str | None, typer.Option(help="Unix socket to listen on, instead of host and port.")
    ] = None
    root_path: Annotated[
        str, typer.Option(help="What a proxy puts before every path, e.g. /models.")
    ] = ""
    ssl_certfile: Annotated[
        str | None, typer.Option(metavar="FILE", help="Certificate, for HTTPS.")
    ] = None
    ssl_keyfile: Annotated[
        str | None, typer.Option(metavar="FILE", help="Key of the certificate.")
    ] = None
    api_key: Annotated[
        list[str],
        typer.Option(
            help="Key that requests must carry (Authorization: Bearer); repeat it for more. All "
            "routes but probes ask for one.",
            show_default=False,
        ),
    ] = field(default_factory=list)
    api_key_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File of such keys, one a line.")
    ] = None
    workers: Annotated[
        int,
        typer.Option(
            help="Processes that serve the same models where one cannot keep up with requests; "
            "they share cores and weights."
        ),
    ] = 1
    admin: Annotated[
        bool,
        typer.Option(
            "--admin",
            help="Let models be added and removed while it runs (/admin/models); needs an API key.",
        ),
    ] = False
    allowed_origin: Annotated[
        list[str],
        typer.Option(
            help="Origin of web pages that may ask (CORS), or *; repeat it for more.",
            show_default=False,
        ),
    ] = field(default_factory=list)
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
    token_ids: Annotated[
        str,
        typer.Option(
            help="What token ids in OpenAI's requests are: model (of its own vocabulary), cl100k "
            "(what LangChain sends; turned back into text) or refuse."
        ),
    ] = "model"
    cl100k_file: Annotated[
        str | None,
        typer.Option(
            "--cl100k-file",
            metavar="FILE",
            help="cl100k_base.tiktoken; from TIKTOKEN_CACHE_DIR if not given.",
        ),
    ] = None
    max_queued_tokens: Annotated[
        int, typer.Option(help="Tokens that may wait, a model; beyond it requests get 429.")
    ] = 1 << 20
    max_queue: Annotated[
        float,
        typer.Option(help="Seconds until a request would begin, about; beyond it it gets 429."),
    ] = 10.0
    max_items: Annotated[int, typer.Option(help="Most texts in a request.")] = 16_384
    max_body_bytes: Annotated[int, typer.Option(help="Longest request body.")] = 16 << 20
    truncate: Annotated[
        bool,
        typer.Option(
            "--truncate",
            help="Cut texts that are too long, where a request does not say; they are refused "
            "if not given.",
        ),
    ] = False
    request_timeout: Annotated[
        float | None,
        typer.Option(help="Seconds that a request may take before it gets 504; none if not given."),
    ] = None
    drain_timeout: Annotated[
        float, typer.Option(help="Seconds to finish what was begun when asked to stop.")
    ] = 30.0
    log_level: Annotated[str, typer.Option(help="critical, error, warning, info or debug.")] = (
        "info"
    )
    log_format: Annotated[str, typer.Option(help="text, or json: an object a line.")] = "text"
    access_log: Annotated[bool, typer.Option(help="Log every request.")] = True
    traces: Annotated[
        bool,
        typer.Option(
            "--traces",
            help="Send OpenTelemetry spans where OTEL_EXPORTER_OTLP_ENDPOINT says.",
        ),
    ] = False

    def settings(self) -> Settings:
        """Return what the server is told.

        Raises InvalidOption for a value that it does not have, InputError for a file of keys that
        cannot be read.
        """
        from poolc.serve.settings import LogFormat, LogLevel, Settings, TokenIdPolicy

        kinds = {"log_level": LogLevel, "log_format": LogFormat, "token_ids": TokenIdPolicy}
        for name, kind in kinds.items():
            allowed = get_args(kind)
            if getattr(self, name) not in allowed:
                raise InvalidOption(
                    f"--{name.replace('_', '-')} is {getattr(self, name)!r}; allowed: "
                    f"{', '.join(allowed)}",
                    param=name,
                )
        return Settings(
            host=self.host,
            port=self.port,
            uds=self.uds,
            root_path=self.root_path,
            ssl_certfile=self.ssl_certfile,
            ssl_keyfile=self.ssl_keyfile,
            api_keys=(*self.api_key, *_keys(self.api_key_file)),
            workers=self.workers,
            admin=self.admin,
            allowed_origins=tuple(self.allowed_origin),
            served_model_names=tuple(self.served_model_name),
            strict_model_name=self.strict_model_name,
            drain_timeout_s=self.drain_timeout,
            token_ids=cast("TokenIdPolicy", self.token_ids),
            cl100k_file=self.cl100k_file,
            request_timeout_s=self.request_timeout,
            max_queued_tokens=self.max_queued_tokens,
            max_queue_s=self.max_queue,
            max_items=self.max_items,
            max_body_bytes=self.max_body_bytes,
            truncate=self.truncate,
            log_level=cast("LogLevel", self.log_level),
            log_format=cast("LogFormat", self.log_format),
            access_log=self.access_log,
            traces=self.traces,
        )


def _keys(file: Path | None) -> list[str]:
    if file is None:
        return []
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {file}: {error}", param="api_key_file") from error
    keys = [line for line in lines if line]
    if not keys:
        # An empty file must not open the server to everybody.
        raise InputError(f"{file} holds no key", param="api_key_file")
    return keys


def _serve(
    models: Models,
    *,
    config: Config = None,
    serving: ServeArguments,
    loading: LoadArguments,
    compiling: CompileArguments,
) -> None:
    """Serve models over HTTP."""
    try:
        from poolc.serve.server import serve as run_server
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        raise MissingDependency(
            f'serving needs {error.name}, which is not installed: pip install "poolc[serve]"'
        ) from error
    settings = serving.settings()
    options = {**compiling.given(), **loading.given()}
    with Reporter() as on_event:
        run_server(models, settings, on_event=on_event, **options)


serve = grouped(_serve, env_prefix="POOLC_")
