"""What is measured of texts of several lengths, and what is made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from poolc import api
from poolc.compiler.json_files import read_json
from poolc.compiler.peak_memory import _fit, report
from poolc.errors import TextTooLong
from poolc.model_cache.artifact import open_artifact
from poolc.runtime.engine import Engine
from poolc.runtime.memory import MemoryFit
from tests.compiler.conftest import CompileHere
from tests.compiler.jina_bert import Layout, author
from tests.models import write_json

MB = 1_000_000


def record(**changes: Any) -> dict[str, Any]:
    return {"max_whole_tokens": 1024, "blocked": 2, "left": [], "whole_masks": [], **changes}


def points(bytes_of: Any, *lengths: int) -> dict[int, int]:
    return {16: 100 * MB, **{n: 100 * MB + bytes_of(n) for n in lengths}}


def test_fit_is_linear_where_attention_is_blocked() -> None:
    def size(n: int) -> int:
        return 1000 * n + 10 * n * n if n <= 1024 else 25_000 * n

    fit = _fit(points(size, 256, 512, 1024, 1536, 2048), {"main": record()})
    assert len(fit["whole"]) == 3
    assert len(fit["long"]) == 2
    found = MemoryFit.recorded({"memory": {"fit": fit}})
    assert found is not None
    for tokens in (256, 600, 1024, 1536, 8192):
        assert size(tokens) <= found.estimate(tokens) + 2 <= 1.2 * size(tokens) + 2


@pytest.mark.parametrize(
    "left", [{"left": ["Softmax_3"]}, {"whole_masks": ["mask"]}, {"blocked": 0}]
)
def test_fit_is_quadratic_where_something_is_not(left: dict[str, Any]) -> None:
    sizes = points(lambda n: 10 * n * n, 256, 512, 1024, 1536, 2048, 4096)
    fit = _fit(sizes, {"main": record(**left)})
    found = MemoryFit.recorded({"memory": {"fit": fit}})
    assert found is not None
    assert found.estimate(8192) == pytest.approx(10 * 8192**2, rel=0.15)


def test_fit_of_short_models_and_its_report() -> None:
    fit = _fit(points(lambda n: 500 * n, 256, 512), {})
    assert fit == {"resident_bytes": 100 * MB, "whole": fit["whole"]}
    found = report(fit, {16: 1, 512: 2}, 512)
    assert found["fit"] == fit
    assert found["peak_bytes"] == {"16": 1, "512": 2}
    assert found["longest_estimate_bytes"] >= 100 * MB + 500 * 512


def test_fit_survives_peaks_that_do_not_rise() -> None:
    fit = _fit(points(lambda n: 5 * MB - n, 256, 512, 768, 1024), {})
    assert min(fit["whole"][1:]) >= 0
    found = MemoryFit.recorded({"memory": {"fit": fit}})
    assert found is not None
    assert found.estimate(256) >= 5 * MB - 256


@pytest.mark.slow
def test_compile_a_model_of_long_texts(compile_here: CompileHere, tmp_path: Path) -> None:
    folder = author(tmp_path / "model", Layout())
    settings = folder / "tokenizer_config.json"
    write_json(settings, {**read_json(settings), "model_max_length": 4096})
    artifact = open_artifact(compile_here(folder).path)
    tuning, evidence = artifact.manifest.tuning, artifact.report()
    assert {name: found["blocked"] for name, found in tuning["attention"].items()} == {
        "main": 2,
        "tokens": 2,
    }
    assert evidence["parity"]["longest_tokens"] == 2048
    assert {"16", "1024", "2048", "4096"} <= evidence["memory"]["peak_bytes"].keys()
    fit = MemoryFit.recorded(evidence)
    assert fit is not None
    engine = api.load(artifact.path, memory_limit=fit.resident_bytes + fit.estimate(2000))
    assert isinstance(engine, Engine)
    text = "river " * 3000
    with pytest.raises(TextTooLong, match=r"item 0 has 3002 tokens, which takes about .* MB"):
        engine.embed([text])
    assert len(engine.embed([text], truncate=True, max_length=1500)) == 1
