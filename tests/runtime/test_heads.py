"""What a request may say beyond its texts, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from poolc.errors import InvalidDimensions, InvalidOption
from poolc.runtime.engine import Engine
from poolc.runtime.outputs import similarity
from poolc.runtime.request import Params
from poolc.spec import LayerSpec, MatryoshkaSpec, Similarity, Task
from tests.runtime.conftest import Variant
from tests.runtime.texts import mixed

TEXTS = mixed(12)


# dimensions


@pytest.mark.parametrize("dimensions", [0, -1, 33, 10**9, True, False, "8", 8.0, [8]])
def test_dimensions_refused(embedder: Engine, dimensions: Any) -> None:
    with pytest.raises(InvalidDimensions, match="this model has 1 to 32") as caught:
        embedder.embed(TEXTS, dimensions=dimensions)
    assert caught.value.param == "dimensions"


@pytest.mark.parametrize("dimensions", [7, 9, 32])
def test_dimensions_not_in_the_list(embedder: Engine, dimensions: int) -> None:
    message = f"dimensions is {dimensions}; this model was trained for: 8, 16"
    with pytest.raises(InvalidDimensions, match=message):
        embedder.embed(TEXTS, dimensions=dimensions)


def test_dimensions_without_declaration(embedder: Engine, variant: Variant) -> None:
    engine = variant(embedder, matryoshka=MatryoshkaSpec())
    with pytest.raises(InvalidDimensions, match="does not support matryoshka representation"):
        engine.embed(TEXTS, dimensions=8)


@pytest.mark.parametrize("dimensions", [1, 5, 31, 32])
def test_any_dimensions_where_no_list_is_declared(
    embedder: Engine, variant: Variant, dimensions: int
) -> None:
    engine = variant(embedder, matryoshka=MatryoshkaSpec(True))
    found = engine.embed(TEXTS, dimensions=dimensions)
    whole = embedder.embed(TEXTS, normalize=False)[:, :dimensions]
    expected = whole / np.linalg.norm(whole, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_dimensions_without_normalising(embedder: Engine) -> None:
    found = embedder.embed(TEXTS, dimensions=8, normalize=False)
    np.testing.assert_array_equal(found, embedder.embed(TEXTS, normalize=False)[:, :8])


def test_dimensions_of_a_score(embedder: Engine) -> None:
    left, right = TEXTS[:6], TEXTS[6:]
    vectors = embedder.embed(TEXTS, dimensions=8)
    expected = (vectors[:6] * vectors[6:]).sum(axis=1)
    np.testing.assert_allclose(embedder.score(left, right, dimensions=8), expected, atol=1e-6)


def test_dimensions_of_a_model_that_does_not_embed(cross_encoder: Engine) -> None:
    with pytest.raises(InvalidDimensions, match="dimensions applies to embed, not to score"):
        cross_encoder.score("a", "b", dimensions=8)


def test_dimensions_of_another_task(classifier: Engine) -> None:
    with pytest.raises(InvalidDimensions, match="not to encode"):
        classifier.prepare(Task.ENCODE, TEXTS, Params(dimensions=8))


def test_token_vectors_behind_layers(embedder: Engine, variant: Variant) -> None:
    engine = variant(embedder, layers=(LayerSpec("2_Dense", 32, 32),))
    message = r"would pass 2_Dense \(dense\), which this artifact computes after pooling only"
    for options in ({"normalize": True}, {"normalize": False}, {"dimensions": 8}):
        given: Any = options
        with pytest.raises(InvalidOption, match=message):
            engine.encode(TEXTS, **given)
    assert len(engine.encode(TEXTS)) == len(TEXTS)


# label


def test_label_needed(classifier: Engine) -> None:
    message = "no label was given; this model scores by one of: negative, neutral, positive"
    with pytest.raises(InvalidOption, match=message) as caught:
        classifier.score("a", "b")
    assert caught.value.param == "label"


@pytest.mark.parametrize("label", ["Positive", "other", 3, -1, True, 1.0, ""])
def test_label_unknown(classifier: Engine, label: Any) -> None:
    with pytest.raises(InvalidOption, match=f"label is {label!r}; this model scores by one of"):
        classifier.score("a", "b", label=label)


def test_label_by_name_and_index(classifier: Engine) -> None:
    by_name = [classifier.score("a", "b", label=name)[0] for name in classifier.spec.labels]
    by_index = [classifier.score("a", "b", label=index)[0] for index in range(3)]
    assert by_name == by_index
    assert sum(by_name) == pytest.approx(1, abs=1e-6)


def test_label_of_the_only_one(cross_encoder: Engine) -> None:
    only = cross_encoder.score("a", "b")
    for label in (0, cross_encoder.spec.labels[0]):
        np.testing.assert_array_equal(cross_encoder.score("a", "b", label=label), only)


def test_label_of_a_similarity(embedder: Engine) -> None:
    with pytest.raises(InvalidOption, match="this model has none"):
        embedder.score("a", "b", label="positive")


# use_activation


def test_use_activation_default_is_the_models(classifier: Engine, variant: Variant) -> None:
    raw = variant(classifier, use_activation=False)
    logits = classifier.classify(TEXTS, use_activation=False).probs
    np.testing.assert_array_equal(raw.classify(TEXTS).probs, logits)
    np.testing.assert_array_equal(raw.score("a", TEXTS, label=1), logits_of(classifier, 1))
    probs = raw.classify(TEXTS, use_activation=True).probs
    np.testing.assert_array_equal(probs, classifier.classify(TEXTS).probs)


def logits_of(engine: Engine, label: int) -> Any:
    return engine.score("a", TEXTS, label=label, use_activation=False)


def test_labels_are_the_best_of_logits_too(classifier: Engine) -> None:
    logits = classifier.classify(TEXTS, use_activation=False)
    assert logits.labels == classifier.classify(TEXTS).labels


@pytest.mark.parametrize("value", ["no", 1, 0, []])
@pytest.mark.parametrize("name", ["normalize", "truncate", "use_activation", "add_special_tokens"])
def test_switches_are_true_or_false(embedder: Engine, name: str, value: Any) -> None:
    with pytest.raises(InvalidOption, match=f"{name} is .*; allowed: True, False, None") as caught:
        embedder.prepare(Task.EMBED, TEXTS, Params(**{name: value}))
    assert caught.value.param == name


# Similarity.


@pytest.mark.parametrize("asked", [None, *Similarity])
def test_similarity_of_a_request(
    embedder: Engine, variant: Variant, asked: Similarity | None
) -> None:
    engine = variant(embedder, similarity=Similarity.EUCLIDEAN, normalize=False)
    prepared = engine.prepare(Task.SCORE, [("a", text) for text in TEXTS], Params(similarity=asked))
    found = engine.finish(prepared, engine.submit(prepared).wait())
    left, right = engine.embed("a"), engine.embed(TEXTS)
    expected = similarity(left, right, asked or Similarity.EUCLIDEAN)
    np.testing.assert_allclose(np.asarray(found), expected, atol=1e-5)


def test_similarity_of_another_type(embedder: Engine) -> None:
    with pytest.raises(InvalidOption, match="similarity is 'cosine'"):
        embedder.prepare(Task.SCORE, [("a", "b")], Params(similarity="cosine"))  # type: ignore[arg-type]


def test_score_of_a_zero_like_dimension_is_finite(embedder: Engine, variant: Variant) -> None:
    engine = variant(embedder, normalize=False)
    assert np.isfinite(engine.score(TEXTS[0], TEXTS)).all()
    assert engine.score("the same", "the same")[0] == pytest.approx(1, abs=1e-6)
