"""How fast a model is: operations are those of the published shapes, figures hang together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from poolc.bench.model import measure, table
from poolc.bench.operations import counted
from poolc.bench.peaks import cpu_bandwidth, cpu_product
from poolc.cli.main import main
from poolc.runtime.engine import Engine
from poolc.spec import Precision


def test_operations_are_those_of_the_configuration(minilm: Path) -> None:
    import poolc

    engine = poolc.load(minilm)
    # MiniLM-L6: 6 layers, hidden size 384, inner size 1536; a product of n rows takes 2 n K N.
    hidden, inner, layers = 384, 1536, 6
    linear = layers * 2 * (4 * hidden * hidden + 2 * hidden * inner)
    square = layers * 4 * hidden
    found = counted(engine)
    assert found.factors[1] == pytest.approx(linear, rel=1e-6)
    assert found.factors[2] == pytest.approx(square, rel=1e-6)
    lengths = [7, 100]
    wanted = sum(linear * n + square * n * n for n in lengths)
    assert found.of(lengths) == pytest.approx(wanted, rel=1e-3)
    assert found.weight_bytes == pytest.approx(4 * linear / 2, rel=0.01)
    engine.close()


def test_figures_hang_together(embedder: Engine) -> None:
    texts = ["the quick brown fox", "a river", "fox " * 200]
    found = measure(embedder, texts, 0.1)
    assert found.texts == 3
    assert found.tokens == 6 + 4 + embedder.max_length
    assert found.rounds >= 3
    assert 0 <= found.padding_share < 1
    assert found.tokens_per_s / found.texts_per_s == pytest.approx(found.tokens / 3)
    assert 0 < found.utilisation < 1
    assert found.lone_p50_ms <= found.lone_p99_ms
    assert f"{found.tokens} tokens" in table(found)


@pytest.mark.parametrize("name", ["classifier", "cross_encoder"])
def test_other_models_are_measured(name: str, request: pytest.FixtureRequest) -> None:
    found = measure(request.getfixturevalue(name), ["a river", "bread"], 0.01)
    assert found.operations_per_s > 0


def test_peaks_are_above_nothing() -> None:
    one = cpu_product(Precision.FP32, 1)
    assert 1e9 < one < 1e13  # a slow core of today, a large machine of tomorrow
    assert cpu_product(Precision.INT8, 1) > 1e9
    assert 1e8 < cpu_bandwidth() < 1e13


def test_command(tiny_embedder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures.json"
    with pytest.raises(SystemExit) as stop:
        main(["bench", "model", str(tiny_embedder), "--seconds", "0.1", "--json", str(file)])
    assert stop.value.code == 0
    assert "of the measured peak" in capsys.readouterr().out
    figures = json.loads(file.read_text())
    assert figures["utilisation"] > 0
    assert len(figures["artifact"]) == 64


def test_no_time(tiny_embedder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["bench", "model", str(tiny_embedder), "--seconds", "0"])
    assert stop.value.code != 0
    assert "--seconds is 0" in capsys.readouterr().err
