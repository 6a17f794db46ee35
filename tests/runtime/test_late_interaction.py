"""MaxSim against its definition, with blocks, empty documents and the mean."""

from __future__ import annotations

import numpy as np
import pytest

from poolc.runtime import late_interaction
from poolc.runtime.late_interaction import EMPTY_DOCUMENT, maxsim
from poolc.runtime.outputs import Float32, Ragged

LENGTHS = [3, 0, 1, 7, 2, 0]


def documents() -> list[Float32]:
    rng = np.random.default_rng(1)
    return [rng.standard_normal((length, 4)).astype(np.float32) for length in LENGTHS]


def defined(query: Float32, document: Float32) -> float:
    if not len(document):
        return EMPTY_DOCUMENT
    return float(sum(max(float(q @ d) for d in document) for q in query))


@pytest.mark.parametrize("elements", [1, 20, 1 << 22])
def test_maxsim_is_its_definition(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late_interaction, "_MAX_ELEMENTS", elements)
    query = np.random.default_rng(2).standard_normal((5, 4)).astype(np.float32)
    scores = maxsim(query, Ragged.from_rows(documents()))
    expected = [defined(query, document) for document in documents()]
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_maxsim_mean_divides_by_the_query() -> None:
    query = np.ones((2, 4), np.float32)
    ragged = Ragged.from_rows(documents())
    np.testing.assert_allclose(maxsim(query, ragged, mean=True), maxsim(query, ragged) / 2)


def test_maxsim_of_empty_documents_alone() -> None:
    ragged = Ragged.from_rows([np.zeros((0, 4), np.float32)] * 2)
    assert maxsim(np.ones((2, 4), np.float32), ragged).tolist() == [EMPTY_DOCUMENT] * 2
