"""Clients that leave and a server that is stopped meanwhile: nobody gets another's vector.

``python -m benchmarks.chaos`` is the same with 200,000 requests.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import chaos


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_request_is_answered_rightly_or_cleanly_refused(tiny_embedder: Path) -> None:
    found = chaos.run(tiny_embedder, requests=6000, clients=24, stops=3)
    assert not found.wrong
    assert found.exits == [0] * 4  # a stop finishes what was let in
    assert sum(found.outcomes.values()) == 6000
    assert found.outcomes["answered"] > 3000 and found.outcomes["left"] > 300
    assert not found.left_behind(clients=24)
