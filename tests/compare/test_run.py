"""Two artifacts on the same texts: the figures are those of their answers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import accuracy_score

from poolc.compare import Settings, compare, run
from poolc.compare.sides import Asked, EngineSide
from poolc.errors import InvalidDimensions, InvalidOption, UnsupportedTask
from poolc.runtime.engine import Engine
from poolc.runtime.outputs import Float32
from poolc.runtime.request import Item


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def disturbed(monkeypatch: pytest.MonkeyPatch) -> float:
    """Add noise of this size to what the second side answers."""
    answers, size = EngineSide.answers, 0.05

    def noisy(self: EngineSide, asked: Asked, items: Sequence[Item]) -> Iterator[Float32]:
        rng = np.random.default_rng(len(items))
        for window in answers(self, asked, items):
            noise = rng.normal(scale=size, size=window.shape).astype(np.float32)
            yield window + noise if self.identity.name.endswith("/.") else window

    monkeypatch.setattr(EngineSide, "answers", noisy)
    return size


def test_an_artifact_is_itself(tiny_embedder: Path, texts: Path, quick: Settings) -> None:
    found = compare(tiny_embedder, tiny_embedder, texts, quick)
    figures = found.figures()
    assert found.same_space
    assert (figures["overlap"], figures["same_nearest"], figures["max_abs"]) == (1, 1, 0)
    assert figures["cosine_min"] == pytest.approx(1, abs=1e-6)
    assert found.vectors is not None
    assert found.vectors.num_texts == len({row["text"] for row in rows_of(texts)})


def test_vectors_that_differ(
    tiny_embedder: Path, embedder: Engine, texts: Path, quick: Settings, disturbed: float
) -> None:
    found = compare(tiny_embedder, f"{tiny_embedder}/.", texts, quick).figures()
    given = list(dict.fromkeys(row["text"] for row in rows_of(texts)))
    first = embedder.embed(given)
    noise = np.random.default_rng(len(given)).normal(scale=disturbed, size=first.shape)
    second = first + noise.astype(np.float32)
    cosines = np.sum(first * second, axis=1) / np.linalg.norm(second, axis=1)
    assert found["cosine"] == pytest.approx(cosines.mean(), abs=1e-5)
    assert found["cosine_p5"] == pytest.approx(np.percentile(cosines, 5), abs=1e-5)
    assert found["max_abs"] == pytest.approx(np.abs(first - second).max(), abs=1e-5)
    assert found["overlap"] < 1


def test_matryoshka_sizes(tiny_embedder: Path, texts: Path, quick: Settings) -> None:
    found = compare(tiny_embedder, tiny_embedder, texts, replace(quick, dimensions=8))
    assert found.vectors is not None
    assert found.vectors.size == 8


def test_classes(
    tiny_classifier: Path,
    classifier: Engine,
    texts: Path,
    quick: Settings,
    disturbed: float,
) -> None:
    found = compare(tiny_classifier, f"{tiny_classifier}/.", texts, quick).figures()
    rows = rows_of(texts)
    probs = classifier.classify([row["text"] for row in rows]).probs
    noise = np.random.default_rng(len(rows)).normal(scale=disturbed, size=probs.shape)
    other = probs + noise.astype(np.float32)
    assert found["max_difference"] == pytest.approx(np.abs(noise).max(), abs=1e-6)
    assert found["label_agreement"] == accuracy_score(probs.argmax(1), other.argmax(1))
    names = classifier.spec.labels
    for name, values in (("quality_a", probs), ("quality_b", other)):
        told = [names[i] for i in values.argmax(1)]
        expected = 100 * accuracy_score([row["label"] for row in rows], told)
        assert found[name] == pytest.approx(expected)


@pytest.mark.parametrize("model", ["tiny_cross_encoder", "tiny_embedder"])
def test_scores(
    model: str, request: pytest.FixtureRequest, pairs: Path, quick: Settings, disturbed: float
) -> None:
    path = request.getfixturevalue(model)
    found = compare(path, f"{path}/.", pairs, quick)
    rows = rows_of(pairs)
    engine = request.getfixturevalue(model.removeprefix("tiny_"))
    scores = engine.score([r["query"] for r in rows], [r["document"] for r in rows])
    noise = np.random.default_rng(len(rows)).normal(scale=disturbed, size=(len(rows), 1))
    other = scores + noise[:, 0].astype(np.float32)
    figures = found.figures()
    assert figures["correlation"] == pytest.approx(spearmanr(scores, other).statistic)
    labels = [row["score"] for row in rows]
    assert figures["quality_a"] == pytest.approx(100 * spearmanr(scores, labels).statistic)
    assert figures["quality_b"] == pytest.approx(100 * spearmanr(other, labels).statistic)
    assert (found.vectors is None) == (model == "tiny_cross_encoder")


def test_speed_is_that_of_both(tiny_embedder: Path, text_file: Path) -> None:
    found = compare(tiny_embedder, tiny_embedder, text_file, Settings(seconds=0.01))
    assert found.speed is not None
    assert (found.speed.num_items, len(found.speed.ratios) >= 5) == (3, True)
    low, high = found.speed.spread
    assert 0 < low <= found.speed.ratio <= high
    assert found.vectors is not None
    assert found.vectors.neighbours is None  # of three texts


def test_stages_are_told(tiny_embedder: Path, texts: Path, quick: Settings) -> None:
    heard: list[dict[str, Any]] = []
    compare(tiny_embedder, tiny_embedder, texts, quick, on_event=heard.append)
    done = [event["name"] for event in heard if event.get("status") == "done"]
    assert done == ["embed A", "embed B", "neighbours"]


def test_sizes_that_differ_are_refused(
    tiny_embedder: Path, minilm: Path, texts: Path, quick: Settings
) -> None:
    with pytest.raises(InvalidDimensions, match=r"have 32 numbers, .* 384: .*--dimensions 32"):
        compare(tiny_embedder, minilm, texts, quick)
    with pytest.raises(InvalidDimensions, match="does not support matryoshka"):
        compare(tiny_embedder, minilm, texts, replace(quick, dimensions=16))


def test_tasks_that_differ_are_refused(
    tiny_embedder: Path, tiny_classifier: Path, texts: Path, quick: Settings
) -> None:
    with pytest.raises(UnsupportedTask, match="no task in common that single texts"):
        compare(tiny_embedder, tiny_classifier, texts, quick)
    with pytest.raises(InvalidDimensions, match="not to classify"):
        compare(tiny_classifier, tiny_classifier, texts, replace(quick, dimensions=8))


def test_labels_that_differ_are_refused(
    tiny_classifier: Path, texts: Path, quick: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = run._opened

    def renamed(name: str, *rest: Any) -> Any:
        side = opened(name, *rest)
        if name.endswith("/."):
            side.spec = replace(side.spec, labels=tuple(reversed(side.spec.labels)))
        return side

    monkeypatch.setattr(run, "_opened", renamed)
    with pytest.raises(UnsupportedTask, match="labels differ: negative, neutral, positive and"):
        compare(tiny_classifier, f"{tiny_classifier}/.", texts, quick)


@pytest.mark.parametrize("name", ["queries", "neighbours", "timed", "limit", "seconds"])
def test_settings_that_are_refused(name: str) -> None:
    with pytest.raises(InvalidOption, match=f"{name} is -1; allowed"):
        Settings(**{name: -1})  # type: ignore[arg-type]
