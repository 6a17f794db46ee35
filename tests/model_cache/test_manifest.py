"""The manifest: canonical bytes, strict reading, and the two ids."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolc.errors import ArtifactCorrupt, ArtifactIncompatible
from poolc.model_cache.manifest import (
    SCHEMA_MAJOR,
    GraphInfo,
    Manifest,
    Requires,
    SchemaVersion,
    Source,
    TensorInfo,
    parse_manifest,
    space_id,
)
from poolc.spec import (
    Activation,
    Kind,
    LayerSpec,
    MatryoshkaSpec,
    ModelSpec,
    PoolingType,
    Precision,
    Profile,
    Similarity,
    Target,
    Task,
)

from .fakes import digests, fake_manifest, fake_spec

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
sizes = st.integers(0, 2**40)
hashes = st.dictionaries(names, st.text("0123456789abcdef", min_size=64, max_size=64), max_size=4)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
shapes = st.tuples(sizes, sizes)


def tuples(inner: st.SearchStrategy[Any], size: int = 3) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=size).map(tuple)


specs = st.builds(
    ModelSpec,
    architecture=names,
    model_type=names,
    tasks=tuples(st.sampled_from(Task)),
    hidden_size=sizes,
    max_length=sizes,
    inputs=tuples(names),
    vocab_size=sizes,
    pooling=tuples(st.sampled_from(PoolingType)),
    kind=st.sampled_from(Kind),
    layers=tuples(
        st.builds(LayerSpec, names, sizes, sizes, st.booleans(), st.sampled_from(Activation))
    ),
    normalize=st.booleans(),
    embedding_size=st.none() | sizes,
    labels=tuples(names),
    activation=st.none() | st.sampled_from(Activation),
    similarity=st.sampled_from(Similarity),
    prompts=st.dictionaries(names, names, max_size=3),
    default_prompt_name=st.none() | names,
    matryoshka=st.builds(MatryoshkaSpec, st.booleans(), tuples(sizes)),
    origins=st.dictionaries(names, names, max_size=3),
)
tensors = tuples(st.builds(TensorInfo, names, names, tuples(names | sizes)))
manifests = st.builds(
    Manifest,
    schema=st.builds(SchemaVersion, st.just(SCHEMA_MAJOR), st.integers(0, 9)),
    recipe=sizes,
    source=st.builds(Source, names, st.none() | names, hashes),
    spec=specs,
    target=st.sampled_from(Target),
    precision=st.sampled_from(Precision),
    graphs=st.dictionaries(names, st.builds(GraphInfo, names, tensors, tensors), max_size=2),
    space_id=names,
    files=hashes,
    requires=st.builds(Requires, st.none() | names, tuples(names)),
    profiles=tuples(st.builds(Profile, shapes, shapes, shapes), 2),
    tuning=st.dictionaries(names, json_values, max_size=3),
    options=st.dictionaries(names, json_values, max_size=3),
)


@settings(max_examples=60, deadline=None)
@given(manifests)
def test_manifest_round_trip(manifest: Manifest) -> None:
    data = manifest.to_bytes()
    again = parse_manifest(data)
    assert again == manifest
    assert again.to_bytes() == data
    assert again.artifact_id == manifest.artifact_id


def plain_manifest() -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(fake_manifest({}).to_bytes())
    return plain


def parse(plain: Any) -> Manifest:
    return parse_manifest(json.dumps(plain).encode())


def test_manifest_unknown_optional_fields_are_ignored() -> None:
    plain = plain_manifest()
    plain["added_later"] = {"a": 1}
    plain["spec"]["added_later"] = [1]
    plain["schema"]["minor"] = 99
    parsed = parse(plain)
    assert parsed.spec == fake_spec()


def test_manifest_optional_fields_have_defaults() -> None:
    plain = plain_manifest()
    for name in ("requires", "profiles", "tuning", "options", "critical"):
        del plain[name]
    assert parse(plain) == fake_manifest({})


def test_manifest_newer_major_is_refused() -> None:
    plain = plain_manifest() | {"schema": {"major": SCHEMA_MAJOR + 1, "minor": 0}}
    with pytest.raises(ArtifactIncompatible, match="upgrade poolc"):
        parse(plain)


@pytest.mark.parametrize("critical", [["sharding"], [{"a": 1}], "sharding"])
def test_manifest_unknown_critical_is_refused(critical: Any) -> None:
    with pytest.raises(ArtifactIncompatible, match="does not know"):
        parse(plain_manifest() | {"critical": critical})


@pytest.mark.parametrize(
    ("path", "value", "where"),
    [
        (("spec", "max_length"), "12", "manifest.spec.max_length must be int"),
        (("spec", "max_length"), True, "manifest.spec.max_length must be int"),
        (("spec", "tasks"), ["fly"], r"manifest.spec.tasks\[0\] is 'fly'; allowed: embed"),
        (("graphs", "main", "file"), None, "manifest.graphs.main.file must be str"),
        (("graphs", "main", "inputs"), {}, "manifest.graphs.main.inputs must be a list"),
        (("files",), [], "manifest.files must be an object"),
        (("target",), ["cpu"], "manifest.target is"),
        (("source",), "x", "manifest.source must be an object"),
        (
            ("profiles",),
            [{"min_shape": [1], "opt_shape": [1, 1], "max_shape": [1, 1]}],
            "list of 2",
        ),
    ],
)
def test_manifest_malformed_field_is_named(path: tuple[str, ...], value: Any, where: str) -> None:
    plain = plain_manifest()
    inner = plain
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(ArtifactCorrupt, match=where):
        parse(plain)


@pytest.mark.parametrize("name", ["source", "spec", "files", "space_id"])
def test_manifest_missing_field_is_named(name: str) -> None:
    plain = plain_manifest()
    del plain[name]
    with pytest.raises(ArtifactCorrupt, match=f"manifest.{name} is missing"):
        parse(plain)


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b"{}", b"[" * 100_000, b'{"schema": 1}'])
def test_manifest_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ArtifactCorrupt):
        parse_manifest(data)


@settings(max_examples=100, deadline=None)
@given(json_values, st.sampled_from(sorted(plain_manifest())))
def test_manifest_any_value_anywhere_raises_only_ours(value: Any, name: str) -> None:
    with suppress(ArtifactCorrupt, ArtifactIncompatible):
        parse(plain_manifest() | {name: value})


def test_artifact_id_changes_with_any_file() -> None:
    contents = {"a": b"1", "b": b"2", "c": b"3"}
    ids = {fake_manifest(digests(contents)).artifact_id}
    ids |= {fake_manifest(digests(contents | {name: b"x"})).artifact_id for name in contents}
    assert len(ids) == 4


def test_artifact_id_is_independent_of_order() -> None:
    files = digests({"a": b"1", "b": b"2"})
    backwards = dict(reversed(files.items()))
    assert fake_manifest(files).artifact_id == fake_manifest(backwards).artifact_id


WEIGHTS = {"model.safetensors": "1" * 64, "tokenizer.json": "2" * 64}


@pytest.mark.parametrize(
    "changes",
    [
        {"pooling": (PoolingType.CLS,)},
        {"normalize": True},
        {"max_length": 32},
        {"prompts": {"query": "other: "}},
        {"layers": (LayerSpec("2_Dense", 8, 4, True, Activation.TANH),)},
    ],
)
def test_space_id_changes_with_the_heads(changes: dict[str, Any]) -> None:
    assert space_id(fake_spec(**changes), WEIGHTS) != space_id(fake_spec(), WEIGHTS)


def test_space_id_changes_with_the_weights() -> None:
    other = WEIGHTS | {"model.safetensors": "3" * 64}
    assert space_id(fake_spec(), other) != space_id(fake_spec(), WEIGHTS)


def test_space_id_ignores_where_choices_came_from() -> None:
    spec = fake_spec(origins={"pooling": "1_Pooling/config.json"}, default_prompt_name="query")
    assert space_id(spec, WEIGHTS) == space_id(fake_spec(), WEIGHTS)


def test_space_id_stays_while_the_artifact_id_changes() -> None:
    manifest = fake_manifest({})
    others = [
        replace(manifest, target=Target.CUDA),
        replace(manifest, precision=Precision.INT8),
        replace(manifest, tuning={"budget": 256}),
        replace(manifest, options={"keep_canonical": True}),
    ]
    assert {other.space_id for other in others} == {manifest.space_id}
    assert len({other.artifact_id for other in [manifest, *others]}) == 5
