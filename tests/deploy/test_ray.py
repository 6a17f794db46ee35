"""The files of ``deploy/ray``: what they say to poolc. Ray's own schema is asked in a slow test."""

from __future__ import annotations

import importlib
import shlex
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner

from poolc.cli.main import app
from poolc.cluster.deployment import NAME, serving_of
from poolc.cluster.workers import parse_workers

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "ray"


def read(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


def test_serve_config() -> None:
    (application,) = read("serve.yaml")["applications"]
    module, name = application["import_path"].split(":")
    assert callable(getattr(importlib.import_module(module), name))
    serving = serving_of(application["args"])
    assert serving.models
    assert not serving.options
    assert [one["name"] for one in application["deployments"]] == [NAME]


def test_job() -> None:
    program, command, *told = shlex.split(read("job.yaml")["spec"]["entrypoint"])
    assert (program, command) == ("poolc", "embed")
    options = {one: told[at + 1] for at, one in enumerate(told) if one.startswith("--")}
    assert options["--engine"] == "ray"
    assert parse_workers(options["--workers"]) == (2, None)
    said = CliRunner().invoke(app, ["embed", "--help"], env={"COLUMNS": "200"}).output
    assert all(option in said for option in options)
