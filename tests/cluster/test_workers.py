"""What workers are, and what is said without Ray."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

import poolc
from poolc.cluster.crew import check_room
from poolc.cluster.deployment import serving_of
from poolc.cluster.workers import Workers, parse_workers
from poolc.errors import InvalidOption, MissingDependency
from poolc.runtime.engine import Engine
from poolc.spec import Target

GPU = Target.CUDA


@pytest.mark.parametrize(
    ("given", "parsed"),
    [(4, (4, 4)), ("4", (4, 4)), ("1..4", (1, 4)), ("2..", (2, None)), ((1, None), (1, None))],
)
def test_parse_workers(given: Any, parsed: tuple[int, int | None]) -> None:
    assert parse_workers(given) == parsed


@pytest.mark.parametrize("given", ["", "four", "1-4", "..4", "1..2..3", "-1"])
def test_parse_workers_refuses(given: str) -> None:
    with pytest.raises(InvalidOption, match="allowed: how many"):
        parse_workers(given)


@pytest.mark.parametrize(
    "wrong", [{"least": 0}, {"least": 3, "most": 2}, {"num_cpus": 0}, {"num_gpus": -1}]
)
def test_workers_refuse(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match="allowed"):
        Workers(**wrong)


def test_what_a_worker_gets() -> None:
    workers = Workers(num_cpus=1.5, resources={"rack": 1})
    assert workers.options(GPU) == {"num_cpus": 1.5, "num_gpus": 1.0, "resources": {"rack": 1}}
    assert workers.options(Target.CPU)["num_gpus"] == 0
    assert workers.num_cores == 2
    assert workers.room(GPU, {"CPU": 16, "GPU": 4, "rack": 9}) == 4
    assert workers.room(Target.CPU, {"CPU": 16, "rack": 9}) == 9
    assert Workers(num_cpus=3).room(Target.CPU, {"CPU": 8}) == 2


def test_more_than_the_machine_has() -> None:
    with pytest.raises(InvalidOption, match="a worker wants 4 CPUs and 0 GPUs, this machine gives"):
        check_room(Workers(num_cpus=4), Target.CPU, {"CPU": 2})


def test_without_ray(tiny_embedder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.import_module

    def missing(name: str, package: str | None = None) -> Any:
        if name.partition(".")[0] == "ray":
            raise ModuleNotFoundError("No module named 'ray'", name="ray")
        return found(name, package)

    monkeypatch.setattr(importlib, "import_module", missing)
    text = tmp_path / "in.txt"
    text.write_text("a text\n")
    with pytest.raises(MissingDependency, match=r'needs ray.*pip install "poolc\[ray\]"'):
        poolc.ray.embed(tiny_embedder, text, tmp_path / "out.npy")
    with pytest.raises(MissingDependency, match="serving on Ray needs ray"):
        poolc.ray.app({"models": ["m"]})


def test_keywords(embedder: Engine, tiny_embedder: Path, tmp_path: Path) -> None:
    text = tmp_path / "in.txt"
    text.write_text("a text\n")
    with pytest.raises(InvalidOption, match="no option 'worker'; did you mean workers"):
        poolc.ray.embed(tiny_embedder, text, tmp_path / "out.npy", worker=2)
    with pytest.raises(InvalidOption, match="not an engine"):
        poolc.ray.embed(embedder, text, tmp_path / "out.npy")  # type: ignore[arg-type]


def test_what_replicas_serve() -> None:
    given = {"models": "minilm", "api_keys": "k", "max_items": "5", "memory_limit": "2GB"}
    serving = serving_of(given)
    assert (serving.models, serving.options) == (("minilm",), {"memory_limit": "2GB"})
    assert (serving.settings.api_keys, serving.settings.max_items) == (("k",), 5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "no model was given"),
        ({"models": ["m"], "port": 1}, "use its http_options"),
        ({"models": ["m"], "workers": 2}, "use its num_replicas"),
        ({"models": ["m"], "max_items": "few"}, "max_items is 'few'; allowed: a number"),
        ({"models": ["m"], "max_item": 2}, "no option 'max_item'; did you mean max_items"),
        ({"models": ["m", "n", "o"], "served_model_names": ["a", "b"]}, "2 served model names"),
    ],
)
def test_what_replicas_refuse(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        serving_of(given)
