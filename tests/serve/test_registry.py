"""Names: which model answers, and what its replies call it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from poolc.errors import InvalidOption, UnsupportedTask
from poolc.serve.errors import BadBody, UnknownModel
from poolc.serve.registry import Registry
from poolc.serve.settings import Settings
from poolc.spec import Kind, Task
from tests.serve.conftest import MakeFake
from tests.serve.fakes import SPEC

_KINDS = {
    "embedder": replace(SPEC, tasks=(Task.EMBED, Task.SCORE)),
    "colbert": replace(SPEC, kind=Kind.MULTI_VECTOR, tasks=(Task.EMBED_TOKENS, Task.SCORE)),
    "reranker": replace(
        SPEC, kind=Kind.CLASSIFIER, tasks=(Task.CLASSIFY, Task.SCORE), labels=("LABEL_0",)
    ),
    "classifier": replace(
        SPEC, kind=Kind.CLASSIFIER, tasks=(Task.CLASSIFY, Task.SCORE), labels=("no", "yes")
    ),
}


def registry_of(make_fake: MakeFake, *given: str, **settings: object) -> Registry:
    engines = {}
    for name in given:
        fake = make_fake()
        fake.artifact.manifest.source.id = name.rpartition("=")[2]
        engines[name.partition("=")[0]] = fake.engine
    return Registry(engines, Settings(**settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("asked", [None, "", "anything", "org/model"])
def test_find_one_model_takes_any_name(make_fake: MakeFake, asked: str | None) -> None:
    (model,) = registry_of(make_fake, "org/model").models
    assert registry_of(make_fake, "org/model").find(asked).names == model.names
    assert model.shown_name(asked) == "org/model"


def test_find_strict(make_fake: MakeFake) -> None:
    registry = registry_of(make_fake, "org/model", strict_model_name=True)
    assert registry.find("org/model") is registry.models[0]
    with pytest.raises(UnknownModel, match=r"^The model `x` does not exist\.$"):
        registry.find("x")
    with pytest.raises(BadBody, match="model is missing; allowed: org/model"):
        registry.find(None)


def test_find_among_several(make_fake: MakeFake) -> None:
    registry = registry_of(make_fake, "one", "two")
    assert [registry.find(name) for name in ("one", "two")] == list(registry.models)
    with pytest.raises(UnknownModel):
        registry.find("three")
    with pytest.raises(BadBody, match="one, two"):
        registry.find("")


def test_names_of_a_folder_are_itself_and_its_source(make_fake: MakeFake) -> None:
    (model,) = registry_of(make_fake, "some/folder=org/model").models
    assert model.names == ("some/folder", "org/model")
    assert model.shown_name("org/model") == "org/model"


def test_names_of_the_same_source_are_the_folders(make_fake: MakeFake) -> None:
    registry = registry_of(make_fake, "fp32=org/model", "int8=org/model", "other=org/other")
    assert [model.names for model in registry.models] == [
        ("fp32",),
        ("int8",),
        ("other", "org/other"),
    ]


def test_names_chosen_for_one_model(make_fake: MakeFake) -> None:
    (model,) = registry_of(make_fake, "org/model", served_model_names=("a", "b")).models
    assert model.names == ("a", "b")
    assert [model.shown_name(name) for name in ("a", "b", "org/model")] == ["a", "b", "a"]


def test_names_chosen_for_several_models(make_fake: MakeFake) -> None:
    registry = registry_of(make_fake, "one", "two", served_model_names=("a", "b"))
    assert [model.names for model in registry.models] == [("a",), ("b",)]
    with pytest.raises(InvalidOption, match="1 served model names for 2 models"):
        registry_of(make_fake, "one", "two", served_model_names=("a",))


def test_registry_needs_a_model(make_fake: MakeFake) -> None:
    with pytest.raises(InvalidOption, match="no model"):
        registry_of(make_fake)


@pytest.mark.parametrize(
    ("served", "tasks", "answers"),
    [
        ("embedder reranker classifier", (Task.SCORE,), "reranker"),
        ("classifier embedder colbert", (Task.SCORE,), "colbert"),
        ("classifier embedder", (Task.SCORE,), "embedder"),
        ("classifier", (Task.SCORE,), "classifier"),
        ("embedder reranker classifier", (Task.CLASSIFY,), "classifier"),
        ("embedder reranker", (Task.CLASSIFY,), "reranker"),
        ("colbert embedder", (Task.EMBED,), "embedder"),
        ("reranker classifier embedder", (Task.EMBED, Task.CLASSIFY), "classifier"),
        ("reranker embedder classifier", (Task.EMBED, Task.CLASSIFY), "embedder"),
        ("reranker embedder", (Task.EMBED, Task.SCORE, Task.CLASSIFY), "reranker"),
    ],
)
def test_fit_prefers_what_is_made_for_the_task(
    make_fake: MakeFake, served: str, tasks: tuple[Task, ...], answers: str
) -> None:
    engines = {name: make_fake(spec=_KINDS[name]).engine for name in served.split()}
    registry = Registry(engines, Settings())
    assert registry.fit(None, *tasks).names[0] == answers
    assert registry.fit(served.split()[-1], *tasks) is registry.models[-1]


def test_fit_of_the_same_kind_is_the_first(make_fake: MakeFake) -> None:
    engines = {name: make_fake(spec=_KINDS["reranker"]).engine for name in ("one", "two")}
    registry = Registry(engines, Settings())
    assert registry.fit(None, Task.SCORE).names[0] == "one"
    with pytest.raises(UnsupportedTask):
        registry.fit(None, Task.REWARD)
