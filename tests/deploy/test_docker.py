"""The Dockerfiles, read and not built: what they copy, install and run is there."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.specifiers import SpecifierSet
from typer.testing import CliRunner

from poolc.cli.main import app
from poolc.serve.middleware import OPEN_PATHS

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "deploy" / "docker").glob("*Dockerfile"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
IGNORED = (ROOT / ".dockerignore").read_text().split()


@dataclass(frozen=True, slots=True)
class Instruction:
    word: str
    rest: str
    stage: int  # counted from 0


def instructions(path: Path) -> list[Instruction]:
    """Read a Dockerfile: comments left out, continued lines joined."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    found: list[Instruction] = []
    stage = -1
    for line in re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines():
        word, _, rest = line.strip().partition(" ")
        stage += word == "FROM"
        if word:
            found.append(Instruction(word, rest.strip(), stage))
    return found


def last_stage(path: Path, word: str) -> list[str]:
    read = instructions(path)
    return [one.rest for one in read if one.word == word and one.stage == read[-1].stage]


def environment(path: Path) -> dict[str, str]:
    pairs = " ".join(last_stage(path, "ENV")).split()
    return dict(pair.split("=", 1) for pair in pairs)


def is_ignored(name: str) -> bool:
    return any(fnmatch(name, pattern.removeprefix("**/")) for pattern in IGNORED)


def extras(path: Path) -> Iterator[str]:
    """Yield the extras that are installed; ``${NAME}`` is an argument with a default."""
    defaults = dict(rest.split("=", 1) for rest in last_stage(path, "ARG"))
    for listed in re.findall(r"\.whl\)\[([^\]]+)\]", path.read_text()):
        for name in listed.split(","):
            argument = re.fullmatch(r"\$\{(\w+)\}", name)
            yield defaults[argument[1]] if argument else name


def health(path: Path) -> str:
    """Return the Python program of the health check."""
    (check,) = last_stage(path, "HEALTHCHECK")
    python, flag, program = json.loads(check.partition("CMD ")[2])
    assert (python, flag) == ("python", "-c")
    return str(program)


def test_every_target_has_an_image() -> None:
    assert [path.name.partition(".")[0] for path in FILES] == ["cpu", "cuda", "tensorrt"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_is_copied_is_there(path: Path) -> None:
    read = instructions(path)
    stages = [one.rest.partition(" AS ")[2] for one in read if one.word == "FROM"]
    for one in read:
        if one.word != "COPY":
            continue
        *sources, _ = one.rest.split()
        stage = sources[0].removeprefix("--from=")
        if stage != sources[0]:
            assert stage in stages[: one.stage]
            continue
        for source in sources:
            assert (ROOT / source).exists() and not is_ignored(source), source


def test_what_the_wheel_is_built_of_is_not_ignored() -> None:
    project = PROJECT["project"]
    for name in ("pyproject.toml", "poolc", project["readme"], *project["license-files"]):
        assert (ROOT / name).exists() and not is_ignored(name)
    assert is_ignored(".venv") and is_ignored(".git")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_extras_and_python_are_those_of_the_project(path: Path) -> None:
    known = PROJECT["project"]["optional-dependencies"]
    found = list(extras(path))
    assert "serve" in found and set(found) <= known.keys()
    assert set(re.findall(r"EXTRA=([\w-]+)", path.read_text())) <= known.keys()
    versions = re.findall(r"^FROM python:(\d+\.\d+)", path.read_text(), re.MULTILINE)
    wanted = SpecifierSet(PROJECT["project"]["requires-python"])
    assert len(versions) == 2 and all(wanted.contains(version) for version in versions)
    (entry,) = last_stage(path, "ENTRYPOINT")
    assert set(json.loads(entry)) <= PROJECT["project"]["scripts"].keys()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_nothing_runs_as_root_and_the_cache_can_be_written(path: Path) -> None:
    read = instructions(path)
    (user,) = last_stage(path, "USER")
    made = " ".join(one.rest for one in read if one.word == "RUN" and one.stage == read[-1].stage)
    (uid,) = re.findall(rf"useradd .*--uid (\d+) {user}\b", made)
    deployment = ROOT / "deploy" / "kubernetes" / "base" / "deployment.yaml"
    pod: Any = yaml.safe_load(deployment.read_text())["spec"]["template"]["spec"]
    assert int(uid) == pod["securityContext"]["runAsUser"] > 0
    # A volume takes its owner from the folder of the image that it is mounted on.
    cache = environment(path)["POOLC_CACHE"]
    assert f"install -d -o {user} -g {user} {cache}" in made
    words = [one.word for one in read]
    assert words.index("USER") > max(i for i, word in enumerate(words) if word == "RUN")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_health_is_asked_where_the_server_listens(path: Path) -> None:
    program = health(path)
    ast.parse(program)
    (asked,) = re.findall(r"\}(/\w+)'", program)
    assert asked in OPEN_PATHS
    env = environment(path)
    (exposed,) = last_stage(path, "EXPOSE")
    assert env["POOLC_PORT"] == exposed
    assert 'os.environ["POOLC_PORT"]' in program


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_variables_are_options_of_the_server(path: Path) -> None:
    shown = CliRunner().invoke(app, ["serve", "--help"]).output
    for name in environment(path).keys() - {"POOLC_CACHE"}:
        assert f"--{name.removeprefix('POOLC_').lower().replace('_', '-')}" in shown
