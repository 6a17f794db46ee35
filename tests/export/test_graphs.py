"""Graphs on their own: the same numbers, and no weight that they do not read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from poolc.export.graphs import DATA_FILE, GRAPH_FILE, as_tokens, keep_outputs, write_graph
from poolc.model_cache.artifact import open_artifact
from poolc.spec import POOLED, SENTENCE_EMBEDDING


def run(path: Path, outputs: list[str]) -> list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    ids = np.array([[2, 17, 21, 3], [2, 9, 3, 0]], np.int64)
    feeds = {"input_ids": ids, "attention_mask": (ids != 0).astype(np.int64)}
    feeds["token_type_ids"] = np.zeros_like(ids)
    return list(session.run(outputs, feeds))


def test_outputs_and_weights(tiny_embedder: Path, tmp_path: Path) -> None:
    source = open_artifact(tiny_embedder).file("model.onnx")
    (expected,) = run(source, [POOLED])
    write_graph(source, tmp_path, as_tokens(POOLED, 32, "last_hidden_state"))
    (found,) = run(tmp_path / GRAPH_FILE, ["last_hidden_state"])
    assert found.shape == (2, 1, 32)
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-6)


def test_packed_weights_are_left_behind(minilm: Path, tmp_path: Path) -> None:
    artifact = open_artifact(minilm)
    if artifact.manifest.packed_for is None:
        pytest.skip("weights were not packed for this machine")
    write_graph(artifact.file("model.onnx"), tmp_path, keep_outputs([SENTENCE_EMBEDDING]))
    before = artifact.file(DATA_FILE).stat().st_size
    assert (tmp_path / DATA_FILE).stat().st_size < 0.8 * before
    for one, other in zip(
        run(tmp_path / GRAPH_FILE, [SENTENCE_EMBEDDING]),
        run(artifact.file("model.onnx"), [SENTENCE_EMBEDDING]),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, atol=1e-6)
