"""Recognition of classifiers and cross-encoders: labels, activation, pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sentence_transformers import CrossEncoder
from transformers import AutoConfig

from poolc.compiler.heads import activation_module
from poolc.errors import InvalidOption, UnsupportedModel
from poolc.spec import Activation, Task
from tests.compiler.conftest import Recognise, plain_spec
from tests.compiler.folders import classifier, edit_json
from tests.models import write_json, write_modules

IDENTITY = "torch.nn.modules.linear.Identity"
SIGMOID = "torch.nn.modules.activation.Sigmoid"
SOFTMAX = "torch.nn.modules.activation.Softmax"
LEGACY = "sbert_ce_default_activation_function"
MULTI = {"problem_type": "multi_label_classification"}
SINGLE = {"problem_type": "single_label_classification"}
REGRESSION = {"problem_type": "regression"}


@pytest.fixture(scope="module")
def three_labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classifier(tmp_path_factory.mktemp("classifier") / "model", num_labels=3)


def by_library(path: str) -> dict[str, Any]:
    return {"sentence_transformers": {"activation_fn": path, "version": "5.1"}}


@pytest.mark.parametrize(
    ("labels", "changes", "activation", "origin"),
    [
        (1, {}, "sigmoid", "1 label(s) in config.json: id2label"),
        (2, {}, "softmax", "2 label(s) in config.json: id2label"),
        (3, {}, "softmax", "3 label(s) in config.json: id2label"),
        (1, REGRESSION, "identity", "config.json: problem_type regression"),
        (3, REGRESSION, "identity", "config.json: problem_type regression"),
        (3, MULTI, "sigmoid", "config.json: problem_type multi_label_classification"),
        (3, SINGLE, "softmax", "config.json: problem_type single_label_classification"),
        (1, by_library(IDENTITY), "identity", "config.json: sentence_transformers.activation_fn"),
        (3, by_library(SOFTMAX), "softmax", "config.json: sentence_transformers.activation_fn"),
        (1, {LEGACY: IDENTITY}, "identity", f"config.json: {LEGACY}"),
        (
            1,
            {LEGACY: SIGMOID, **by_library(IDENTITY)},
            "identity",
            "config.json: sentence_transformers.activation_fn",
        ),
        (
            3,
            {**by_library(IDENTITY), **MULTI},
            "sigmoid",
            "config.json: problem_type multi_label_classification",
        ),
        (3, {"problem_type": "unheard_of"}, "softmax", "3 label(s) in config.json: id2label"),
    ],
)
def test_recognize_activation(
    labels: int,
    changes: Any,
    activation: str,
    origin: str,
    tmp_path: Path,
    recognise: Recognise,
) -> None:
    folder = classifier(tmp_path / "model", num_labels=labels)
    edit_json(folder / "config.json", **changes)
    spec = recognise(folder).spec
    assert (spec.activation, spec.origins["activation"]) == (Activation(activation), origin)
    assert len(spec.labels) == labels
    assert (Task.REWARD in spec.tasks) is (labels == 1)


@pytest.mark.parametrize(
    ("labels", "changes"),
    [
        (1, {}),
        (1, by_library(IDENTITY)),
        (1, {LEGACY: IDENTITY}),
        (1, {LEGACY: SIGMOID, **by_library(IDENTITY)}),
        (3, by_library(IDENTITY)),
        (3, by_library("torch.nn.modules.activation.ReLU")),
    ],
)
def test_recognize_activation_of_cross_encoders(
    labels: int, changes: Any, tmp_path: Path, recognise: Recognise
) -> None:
    folder = classifier(tmp_path / "model", num_labels=labels)
    edit_json(folder / "config.json", **changes)
    spec = recognise(folder).spec
    library = CrossEncoder(str(folder), device="cpu")
    assert spec.activation is not None
    assert isinstance(activation_module(spec.activation), type(library.activation_fn))
    assert spec.pairs is True


def test_recognize_folder_that_cross_encoder_saved(
    tiny_cross_encoder_source: Path, tmp_path: Path, recognise: Recognise
) -> None:
    saved = tmp_path / "saved"
    model = CrossEncoder(str(tiny_cross_encoder_source), device="cpu")
    model.save_pretrained(str(saved), create_model_card=False)
    assert (saved / "modules.json").exists()
    before, after = recognise(tiny_cross_encoder_source), recognise(saved)
    assert plain_spec(after.spec) == plain_spec(before.spec)
    assert after.spec.origins["tasks"] == (
        "config_sentence_transformers.json: model_type CrossEncoder"
    )
    assert after.spec.pairs is True


def test_recognize_activation_beside_modules(tmp_path: Path, recognise: Recognise) -> None:
    """Version 6 repeats the activation in a file of its own; config.json need not have it."""
    folder = classifier(tmp_path / "model", num_labels=1)
    write_modules(folder, ("Transformer", ""))
    settings = {"model_type": "CrossEncoder", "activation_fn": IDENTITY}
    write_json(folder / "config_sentence_transformers.json", settings)
    spec = recognise(folder).spec
    assert spec.activation is Activation.IDENTITY
    origin = "config_sentence_transformers.json: activation_fn"
    assert spec.origins["activation"] == origin
    edit_json(folder / "config.json", **by_library(SIGMOID))
    assert recognise(folder).spec.activation is Activation.SIGMOID


def test_recognize_labels(tmp_path: Path, recognise: Recognise) -> None:
    # Twelve labels: in the order of their numbers, not of the keys as text.
    names = {i: f"label {i}" for i in range(12)}
    ids = {name: i for i, name in names.items()}
    folder = classifier(tmp_path / "model", id2label=names, label2id=ids)
    spec = recognise(folder).spec
    assert spec.labels == tuple(names.values())
    assert spec.origins["labels"] == "config.json: id2label"
    # Nested objects of hf_overrides are merged, not replaced.
    overrides = {"id2label": {"2": "two"}}
    changed = recognise(folder, hf_overrides=overrides).spec
    assert changed.labels == (*spec.labels[:2], "two", *spec.labels[3:])


def test_recognize_one_label_scores_pairs(tmp_path: Path, recognise: Recognise) -> None:
    spec = recognise(classifier(tmp_path / "model", num_labels=1)).spec
    assert (spec.pairs, spec.origins["pairs"]) == (True, "1 label(s) in config.json: id2label")


def test_recognize_several_labels_read_texts(three_labels: Path, recognise: Recognise) -> None:
    spec = recognise(three_labels).spec
    assert (spec.pairs, spec.origins["pairs"]) == (False, "3 label(s) in config.json: id2label")
    assert spec.embedding_size is None
    assert spec.pooling == ()


@pytest.mark.parametrize(
    ("config", "activation", "use"),
    [
        ({}, "softmax", True),
        ({"activation": "Sigmoid"}, "sigmoid", True),
        ({"activation": False}, "softmax", False),
        ({"activation": True}, "softmax", True),
        ({"use_activation": False}, "softmax", False),
        ({"softmax": False}, "softmax", False),
    ],
)
def test_recognize_pooler_config_of_a_classifier(
    config: Any, activation: str, use: bool, three_labels: Path, recognise: Recognise
) -> None:
    spec = recognise(three_labels, pooler_config=config).spec
    assert (spec.activation, spec.use_activation) == (Activation(activation), use)
    if isinstance(config.get("activation"), str) and activation != "softmax":
        assert spec.origins["activation"] == "--pooler-config activation"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"pooling_type": "MEAN"}, "pooling_type is MEAN; the head of BertForSequ.* allowed: CLS"),
        ({"pooling_type": "ALL"}, "pooling_type is ALL; the head of BertForSequence"),
        ({"normalize": True}, "normalize belongs to embedding models; this .* whose fields are: a"),
    ],
)
def test_recognize_pooling_of_a_classifier(
    config: Any, message: str, three_labels: Path, recognise: Recognise
) -> None:
    with pytest.raises(InvalidOption, match=message):
        recognise(three_labels, pooler_config=config)


def test_recognize_unknown_activation(tmp_path: Path, recognise: Recognise) -> None:
    folder = classifier(tmp_path / "model", num_labels=1)
    edit_json(folder / "config.json", **by_library("mine.Activation"))
    with pytest.raises(UnsupportedModel, match=r"activation 'mine.Activation'; known: torch.nn's"):
        recognise(folder)


@pytest.mark.parametrize("kind", ["SequenceClassification", "TokenClassification"])
@pytest.mark.parametrize(
    ("numbers", "shown"),
    [((1, 2, 3), "1, 2, 3"), ((0, 1, 3), "0, 1, 3"), ((7, 0, 1), "0, 1, 7")],
)
def test_recognize_labels_with_a_gap(
    numbers: tuple[int, ...], shown: str, kind: str, tmp_path: Path, recognise: Recognise
) -> None:
    """transformers calls a column by its number there, and has no name for the rest."""
    folder = classifier(tmp_path / "model", num_labels=3)
    names = {str(number): name for number, name in zip(numbers, "abc", strict=True)}
    edit_json(folder / "config.json", id2label=names, architectures=[f"BertFor{kind}"])
    known = AutoConfig.from_pretrained(folder).id2label
    assert [column for column in range(3) if column not in known]
    with pytest.raises(UnsupportedModel) as caught:
        recognise(folder)
    assert str(caught.value) == (
        f"config.json: id2label has the numbers {shown}; the model's 3 columns are 0 to 2: "
        "correct them there, or call the columns by their numbers with --hf-overrides "
        '\'{"id2label": null, "num_labels": 3}\''
    )
    numbered = recognise(folder, hf_overrides={"id2label": None, "num_labels": 3})
    assert numbered.spec.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
