"""``poolc bench``: how fast a model is, and how a server does under load."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poolc.cli.groups import grouped
from poolc.cli.options import CompileArguments, LoadArguments, Model
from poolc.cli.reporting import Reporter
from poolc.errors import InvalidOption

if TYPE_CHECKING:
    from poolc.bench.load import Outcome

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Measure.")

Url = Annotated[
    str, typer.Argument(metavar="URL", help="Where the server listens, e.g. http://127.0.0.1:8000.")
]
Clients = Annotated[
    str,
    typer.Option(help="How many ask at a time, each after its last answer; several: 1,8,64."),
]
Rate = Annotated[
    str | None,
    typer.Option(
        help="Requests a second that come whatever became of the others, instead of clients; "
        "several: 50,100."
    ),
]


JsonFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the figures as JSON.")
]


@app.callback()
def _group() -> None:
    """Measure a model or a server."""


def model(
    name: Model,
    texts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Texts, one a line, or JSON lines with text; short ones if none."
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(help="How long it is measured, about.")] = 10.0,
    json_file: JsonFile = None,
    *,
    loading: LoadArguments,
    compiling: CompileArguments,
) -> None:
    """Measure a model on this machine: rates, latency, and what share of the machine that is."""
    from poolc import api
    from poolc.bench.asks import made_texts, read_texts
    from poolc.bench.model import measure, table

    if seconds <= 0:
        raise InvalidOption(f"--seconds is {seconds:g}; allowed: more than 0", param="seconds")
    given = made_texts() if texts is None else read_texts(texts)
    with Reporter() as on_event:
        engine = api.load(name, on_event=on_event, **compiling.given(), **loading.given())
    found = measure(engine, given, seconds)
    typer.echo(table(found))
    if json_file is not None:
        _write(json_file, {"artifact": engine.artifact.artifact_id, **found.summary()})


app.command("model")(grouped(model))


@app.command("serve")
def serve(
    url: Url,
    clients: Clients = "1,8,64",
    rate: Rate = None,
    seconds: Annotated[float, typer.Option(help="How long each load lasts.")] = 10.0,
    dialect: Annotated[
        str, typer.Option(help="Whose requests: openai, vllm, tei, cohere or ollama.")
    ] = "openai",
    model: Annotated[str, typer.Option(help="The model that requests name.")] = "model",
    texts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Texts, one a line, or JSON lines with text; short ones if none."
        ),
    ] = None,
    items: Annotated[int, typer.Option(help="Texts in a request.")] = 1,
    api_key: Annotated[
        str | None, typer.Option(envvar="POOLC_API_KEY", help="Key that requests carry.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds until a request is given up.")] = 60.0,
    json_file: JsonFile = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw the latencies (.svg, .png); needs matplotlib."),
    ] = None,
) -> None:
    """Put load on a server that speaks one of the dialects, and tell how it answers."""
    from poolc.bench import report
    from poolc.bench.asks import Dialect, asks, made_texts, read_texts
    from poolc.bench.connections import Target
    from poolc.bench.load import closed, open_loop

    if dialect not in list(Dialect):
        raise InvalidOption(
            f"--dialect is {dialect!r}; allowed: {', '.join(Dialect)}", param="dialect"
        )
    if items < 1:
        raise InvalidOption(f"--items is {items}; allowed: 1 or more", param="items")
    given = made_texts() if texts is None else read_texts(texts)
    sent = asks(given, Dialect(dialect), model, items)
    headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
    target = Target(url.rstrip("/"), headers, timeout)
    found: dict[str, Outcome] = {}
    if rate is None:
        for count in _numbers("clients", clients):
            found[f"{count:g} clients"] = closed(target, sent, int(count), seconds)
    else:
        for one in _numbers("rate", rate):
            found[f"{one:g} requests/s"] = open_loop(target, sent, one, seconds)
    typer.echo(report.table(found))
    if json_file is not None:
        _write(json_file, {name: outcome.summary() for name, outcome in found.items()})
    if plot is not None:
        report.plot(found, plot)


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InvalidOption(
            f"--{option} is {text!r}; allowed: a number, or several with commas", param=option
        ) from None
