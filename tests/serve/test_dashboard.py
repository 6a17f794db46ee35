"""The dashboard asks for nothing that the server does not tell."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from poolc.runtime.engine import Engine
from tests.serve.conftest import MakeClient
from tests.serve.speaking import answer, get

DASHBOARD = Path(__file__).resolve().parents[2] / "deploy" / "grafana" / "poolc.json"
_OF_HISTOGRAMS = re.compile(r"_(bucket|sum|count)$")


def asked_for() -> set[str]:
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    expressions = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    return {name for text in expressions for name in re.findall(r"\b(?:poolc|process)_\w+", text)}


def test_every_metric_exists(
    make_client: MakeClient, embedder: Engine, pytestconfig: pytest.Config
) -> None:
    client = make_client(tiny=embedder)
    answer(client, "/v1/embeddings", input="a text")
    exposition = get(client, "/metrics").text
    told = set(re.findall(r"^# TYPE (\S+)", exposition, re.MULTILINE))
    names = {_OF_HISTOGRAMS.sub("", name) for name in asked_for()}
    assert len(names) > 12
    assert names <= told | {name.removesuffix("_total") for name in told}


def test_panels_do_not_overlap() -> None:
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + i, place["y"] + j) for i in range(place["w"]) for j in range(place["h"])
        }
        assert not cells & taken and max(x for x, _ in cells) < 24
        taken |= cells
