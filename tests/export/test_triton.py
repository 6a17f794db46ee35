"""A Triton model repository: configurations that Triton's messages parse, answers of the engine.

Triton itself is not here: its Python module is a stand-in, and ONNX Runtime runs the graph.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poolc.errors import ArtifactExists, CannotExport, InvalidOption
from poolc.export.triton import TritonOptions, export_triton
from poolc.export.triton.batching import choose_batching
from poolc.model_cache.artifact import Artifact, open_artifact
from poolc.model_cache.manifest import GraphInfo, TensorInfo
from poolc.runtime.engine import Engine
from poolc.spec import Profile, RouterSpec, Target
from tests.export.conftest import Opened
from tests.export.triton import Repository, read_config

TEXTS = [
    "the quick brown fox jumps over the lazy dog",
    "bread",
    "Réserver une table à Zürich, s'il vous plaît: naïve café",
    "a river runs through the old town and under seven bridges of stone " * 8,
]


@pytest.fixture(scope="module")
def repository(tiny_embedder: Path, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return served(open_artifact(tiny_embedder), tmp_path_factory.mktemp("triton") / "out")


def served(artifact: Artifact, folder: Path, **options: Any) -> Repository:
    names = export_triton(artifact, folder, TritonOptions(**options))
    return Repository(folder, names.ensemble)


def single(texts: list[str]) -> list[tuple[str, ...]]:
    return [(text,) for text in texts]


def test_embeddings_are_the_engine_s(repository: Repository, embedder: Engine) -> None:
    found = repository.ask(single(TEXTS), truncate=True)["embedding"]
    np.testing.assert_allclose(found, embedder.embed(TEXTS, truncate=True), atol=1e-6)


def test_a_text_does_not_depend_on_its_neighbours(repository: Repository) -> None:
    together = repository.ask(single(TEXTS), truncate=True)["embedding"]
    for text, vector in zip(TEXTS, together, strict=True):
        alone = repository.ask([(text,)], truncate="TRUE")["embedding"][0]
        np.testing.assert_allclose(alone, vector, atol=1e-6)


def test_prompts(repository: Repository, embedder: Engine) -> None:
    asking: list[Any] = [{"prompt_name": "query"}, {"prompt": "passage: "}, {"prompt": ""}]
    for asked in asking:
        found = repository.ask(single(TEXTS[:2]), **asked)["embedding"]
        np.testing.assert_allclose(found, embedder.embed(TEXTS[:2], **asked), atol=1e-6)
    with pytest.raises(ValueError, match="prompt_name is 'title'; this model has: document, query"):
        repository.ask([("a text",)], prompt_name="title")


def test_default_prompt(opened: Opened, embedder: Engine, tmp_path: Path) -> None:
    changed = opened("tiny_embedder", default_prompt_name="query")
    found = served(changed, tmp_path / "out").ask(single(TEXTS[:2]))["embedding"]
    expected = embedder.embed(TEXTS[:2], prompt_name="query")
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("normalize", [True, False])
def test_vectors_are_cut_and_normalised(
    opened: Opened, embedder: Engine, tmp_path: Path, normalize: bool
) -> None:
    changed = opened("tiny_embedder", default_dimensions=8, normalize=normalize)
    repository = served(changed, tmp_path / "out")
    found = repository.ask(single(TEXTS[:3]))["embedding"]
    expected = embedder.embed(TEXTS[:3], dimensions=8, normalize=normalize)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert list(repository.config.output[0].dims) == [8]


def test_too_long_empty_and_invalid_texts_are_refused(repository: Repository) -> None:
    with pytest.raises(ValueError, match=r"row 3 has \d+ tokens; the limit is 64.*truncate"):
        repository.ask(single(TEXTS))
    with pytest.raises(ValueError, match="row 1: a text is empty"):
        repository.ask([("a",), ("",)])


def test_one_request_s_error_is_not_another_s(repository: Repository) -> None:
    with pytest.raises(ValueError, match="row 0"):
        repository.ask([("",)])
    assert repository.ask([("a text",)])["embedding"].shape == (1, 32)


def test_padded_lengths_are_few(repository: Repository) -> None:
    assert {
        repository.tokens([(" ".join(["bread"] * count),)])["input_ids"].shape[1]
        for count in range(1, 15)
    } == {8, 16}


def test_truncation_by_default(opened: Opened, embedder: Engine, tmp_path: Path) -> None:
    repository = served(opened("tiny_embedder"), tmp_path / "out", truncate=True)
    found = repository.ask(single(TEXTS))["embedding"]
    np.testing.assert_allclose(found, embedder.embed(TEXTS, truncate=True), atol=1e-6)
    with pytest.raises(ValueError, match="the limit is 64"):
        repository.ask(single(TEXTS), truncate=False)


def test_classifier(opened: Opened, classifier: Engine, tmp_path: Path) -> None:
    repository = served(opened("tiny_classifier"), tmp_path / "out")
    found = repository.ask(single(TEXTS), truncate=True)
    for name, activated in (("scores", None), ("logits", False)):
        expected = classifier.classify(TEXTS, truncate=True, use_activation=activated).probs
        np.testing.assert_allclose(found[name], expected, atol=1e-6)
    folder = repository.folder / repository.model.model_name
    labels = (folder / "labels.txt").read_text().splitlines()
    assert labels == list(classifier.spec.labels)
    outputs = read_config(folder).output
    assert [one.label_filename for one in outputs] == ["labels.txt"] * 2
    with pytest.raises(ValueError, match="takes no prompt"):
        repository.ask([("a text",)], prompt="query: ")


def test_raw_scores_by_default(opened: Opened, classifier: Engine, tmp_path: Path) -> None:
    repository = served(opened("tiny_classifier", use_activation=False), tmp_path / "out")
    found = repository.ask(single(TEXTS[:2]))
    expected = classifier.classify(TEXTS[:2], use_activation=False).probs
    np.testing.assert_allclose(found["scores"], expected, atol=1e-6)
    expected = classifier.classify(TEXTS[:2], use_activation=True).probs
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-6)


def test_cross_encoder(opened: Opened, cross_encoder: Engine, tmp_path: Path) -> None:
    repository = served(opened("tiny_cross_encoder"), tmp_path / "out", name="ranker")
    assert repository.config.name == "ranker"
    assert [one.name for one in repository.config.input] == ["query", "document"]
    pairs = [("which fox", TEXTS[0]), (TEXTS[3], TEXTS[3]), (TEXTS[3], "a"), ("a", TEXTS[3])]
    found = repository.ask(pairs, truncate=True)["scores"]
    left, right = zip(*pairs, strict=True)
    expected = cross_encoder.score(list(left), list(right), truncate=True)
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-6)


def test_a_cross_encoder_of_single_texts(opened: Opened, tmp_path: Path) -> None:
    repository = served(opened("tiny_cross_encoder"), tmp_path / "out", pairs=False)
    assert repository.ask(single(TEXTS[:2]))["scores"].shape == (2, 1)


def test_hybrid_model_answers_dense_vectors(opened: Opened, bge_m3: Engine, tmp_path: Path) -> None:
    found = served(opened("tiny_bge_m3"), tmp_path / "out").ask(single(TEXTS[:3]))["embedding"]
    np.testing.assert_allclose(found, bge_m3.embed(TEXTS[:3]), atol=1e-6)


def test_configurations(repository: Repository) -> None:
    tokens = read_config(repository.folder / repository.tokenizer.model_name)
    model = read_config(repository.folder / repository.model.model_name)
    assert (tokens.backend, model.platform) == ("python", "onnxruntime_onnx")
    assert repository.config.platform == "ensemble"
    assert tokens.max_batch_size == model.max_batch_size == repository.config.max_batch_size == 64
    # 256 tokens are 2, 4 and 8 texts of usual lengths.
    assert list(model.dynamic_batching.preferred_batch_size) == [2, 4, 8]
    assert model.parameters["intra_op_thread_count"].string_value == "1"
    assert [one.name for one in tokens.output] == [one.name for one in model.input]
    for folder in (tokens.name, model.name, repository.config.name):
        assert (repository.folder / folder / "1").is_dir()


def test_options_are_in_the_configuration(opened: Opened, tmp_path: Path) -> None:
    options = {"name": "e", "instances": 3, "max_batch_size": 4, "queue_delay_us": 500}
    repository = served(opened("tiny_embedder"), tmp_path / "out", **options)
    model = read_config(repository.folder / "e_model")
    assert model.instance_group[0].count == 3
    assert model.max_batch_size == 4
    assert list(model.dynamic_batching.preferred_batch_size) == [2, 4]
    assert model.dynamic_batching.max_queue_delay_microseconds == 500


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"instances": 0}, "instances is 0; allowed: 1 or more"),
        ({"max_batch_size": 0}, "max_batch_size is 0"),
        ({"queue_delay_us": -1}, "queue_delay_us is -1"),
        ({"name": "a/b"}, "name is 'a/b'"),
        ({"pairs": True}, "pairs is for classifiers"),
    ],
)
def test_options_that_are_refused(
    opened: Opened, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidOption, match=said):
        served(opened("tiny_embedder"), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tiny_tagger", "a model of kind token-classifier answers with one row a token"),
        ("tiny_splade", "a model of kind sparse answers with as many weights as a text has"),
        ("tiny_colbert", "a model of kind multi-vector answers with one vector a token"),
        ("tiny_lm_reranker", "its prompts are made by a template"),
    ],
)
def test_kinds_that_are_refused(opened: Opened, tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(CannotExport, match=said):
        export_triton(opened(name), tmp_path / "out")


def test_routers_and_chunks_are_refused(opened: Opened, tmp_path: Path) -> None:
    router = RouterSpec("a", {"query": "a"}, True)
    for changes, said in (
        ({"router": router}, "routes of their own"),
        ({"chunk": True}, "windows"),
    ):
        with pytest.raises(CannotExport, match=said):
            export_triton(opened("tiny_embedder", **changes), tmp_path / "out")


def test_graphs_without_padding_are_refused(opened: Opened, tmp_path: Path) -> None:
    found = opened("tiny_embedder")
    graph = found.manifest.graphs["main"]
    further = TensorInfo("cu_seqlens", "int32", ("batch_plus_1",))
    packed = replace(graph, inputs=(*graph.inputs, further))
    manifest = replace(found.manifest, target=Target.CUDA, graphs={"main": packed})
    with pytest.raises(CannotExport, match="no padding and wants cu_seqlens"):
        export_triton(replace(found, manifest=manifest), tmp_path / "out")


def engine_of(found: Artifact, folder: Path, profiles: tuple[Profile, ...]) -> Artifact:
    """Return an artifact with the manifest of an engine, whose plan is bytes."""
    (folder / "engine.plan").write_bytes(b"a plan")
    (folder / "tokenizer.json").write_bytes(found.file("tokenizer.json").read_bytes())
    graph = found.manifest.graphs["main"]
    inputs = tuple(replace(one, dtype="int32") for one in graph.inputs)
    engine = GraphInfo("engine.plan", inputs, graph.outputs, onnx="model.onnx")
    manifest = replace(
        found.manifest,
        target=Target.TENSORRT,
        graphs={"main": engine},
        files={"engine.plan": "", "tokenizer.json": ""},
        profiles=profiles,
        tuning={"budget_tokens": 16384},
    )
    return replace(found, path=folder, manifest=manifest)


PROFILES = (
    Profile((1, 16), (1, 16), (1, 16)),
    Profile((1, 1), (64, 32), (64, 32)),
    Profile((1, 1), (16, 64), (16, 64)),
)


def test_engine(opened: Opened, tmp_path: Path) -> None:
    artifact = engine_of(opened("tiny_embedder"), tmp_path, PROFILES)
    names = export_triton(artifact, tmp_path / "out")
    model = read_config(tmp_path / "out" / names.model)
    assert model.platform == "tensorrt_plan"
    assert (tmp_path / "out" / names.model / "1" / "model.plan").read_bytes() == b"a plan"
    (group,) = model.instance_group
    assert (group.kind, list(group.profile)) == (group.KIND_GPU, ["1", "2"])
    # Every batch that Triton may make fits a profile at the longest length.
    assert model.max_batch_size == 16
    assert [(one.name, list(one.dims)) for one in model.output] == [
        ("pooled", [32]),
        ("sentence_embedding", [32]),
    ]
    tokens = read_config(tmp_path / "out" / names.tokenizer)
    assert {one.data_type for one in tokens.output} == {model.input[0].data_type}
    assert not model.parameters
    with pytest.raises(InvalidOption, match="profiles hold 16 texts of any length"):
        export_triton(artifact, tmp_path / "other", TritonOptions(max_batch_size=17))


def test_rows_of_an_engine_fit_at_every_length(opened: Opened, tmp_path: Path) -> None:
    few_short = (Profile((1, 8), (4, 16), (4, 16)), Profile((1, 17), (32, 64), (32, 64)))
    found = engine_of(opened("tiny_embedder"), tmp_path, few_short)
    batching = choose_batching(found.manifest, TritonOptions())
    assert (batching.max_batch_size, batching.least_tokens) == (4, 8)
    for profiles, length in (
        ((Profile((1, 1), (4, 16), (4, 16)), Profile((1, 20), (4, 64), (4, 64))), 17),
        ((Profile((8, 1), (8, 64), (8, 64)),), 1),
    ):
        left_out = replace(found.manifest, profiles=profiles)
        with pytest.raises(CannotExport, match=f"holds a single text of {length} tokens"):
            choose_batching(left_out, TritonOptions())


def test_engines_that_triton_cannot_serve(opened: Opened, tmp_path: Path) -> None:
    artifact = engine_of(opened("tiny_embedder", default_dimensions=8), tmp_path, PROFILES)
    with pytest.raises(CannotExport, match="cut to 8 numbers after the graph"):
        export_triton(artifact, tmp_path / "out")
    rtx = replace(artifact, manifest=replace(artifact.manifest, target=Target.TENSORRT_RTX))
    with pytest.raises(CannotExport, match="no backend for TensorRT-RTX"):
        export_triton(rtx, tmp_path / "out")


def test_same_bytes_again_and_never_over_another_folder(opened: Opened, tmp_path: Path) -> None:
    artifact = opened("tiny_embedder")
    for name in ("one", "two"):
        export_triton(artifact, tmp_path / name)
    files = [path for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert len(files) >= 10
    for path in files:
        other = tmp_path / "two" / path.relative_to(tmp_path / "one")
        assert other.read_bytes() == path.read_bytes()
    with pytest.raises(ArtifactExists):
        export_triton(artifact, tmp_path / "one")
    export_triton(artifact, tmp_path / "one", force=True)


def test_card_names_the_source_and_how_to_ask(repository: Repository) -> None:
    card = (repository.folder / "README.md").read_text()
    name = repository.config.name
    for expected in ("tiny_embedder", f"/v2/models/{name}/infer", "licence", "prompt_name"):
        assert expected in card


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_trained_model(
    minilm_source: Path, tmp_path: Path, precision: str, passages: list[str]
) -> None:
    import poolc

    path = poolc.compile(minilm_source, precision=precision, on_event=lambda event: None).path
    found = served(open_artifact(path), tmp_path / "out").ask(single(passages), truncate=True)
    expected = poolc.load(path).embed(passages, truncate=True)
    np.testing.assert_allclose(found["embedding"], expected, atol=2e-6)
