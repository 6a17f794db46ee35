"""int8 artifacts of every kind of trunk: gated, independent of the batch, the same bytes again."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from poolc.compiler.passes.quantize_linears import QuantizeLinearsPass
from poolc.compiler.quantize import formats
from poolc.errors import ArtifactIncompatible, CompileError, InputError, InvalidOption, ParityError
from poolc.model_cache import host
from poolc.model_cache.artifact import open_artifact
from poolc.model_cache.requests import compile_key
from poolc.runtime.engine import Engine
from poolc.spec import CompileOptions, Precision
from tests.compiler.conftest import CompileHere
from tests.compiler.layout_folders import model2vec_folder
from tests.matrix.compare import TEXTS
from tests.matrix.families import FAMILIES
from tests.matrix.heads import HEADS

# A trunk of each kind: norms behind and before, Gemm, bias-free products, a language model.
FAMILIES_TRIED = ("bert/mean", "modernbert/mean", "gpt2/mean", "qwen3/last", "t5/mean")


def cosines(found: Any, exact: Any) -> Any:
    return (found * exact).sum(-1) / np.linalg.norm(found, axis=-1) / np.linalg.norm(exact, axis=-1)


@pytest.mark.parametrize("cell", FAMILIES_TRIED)
def test_families(cell: str, tmp_path: Path, compile_here: CompileHere) -> None:
    family, head = cell.split("/")
    folder = tmp_path / "model"
    folder.mkdir()
    HEADS[head].build(FAMILIES[family], folder)
    engine = Engine(compile_here(folder, precision="int8"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # One at a time: what the library makes of padding is no reference.
        exact = SentenceTransformer(str(folder), device="cpu").encode(TEXTS, batch_size=1)
    found = engine.embed(TEXTS, truncate=True)
    assert cosines(found, exact).min() >= 0.98
    assert np.abs(found - exact).max() > 1e-5  # or nothing was quantised
    alone = np.concatenate([engine.embed([text], truncate=True) for text in TEXTS])
    np.testing.assert_allclose(found, alone, atol=1e-6)


def test_what_an_artifact_says(plain_bert: Path, compile_here: CompileHere) -> None:
    artifact = compile_here(plain_bert, precision="int8")
    manifest, report = artifact.manifest, artifact.report()
    groups = manifest.tuning["int8"]["groups"]["main"]
    assert manifest.precision is Precision.INT8
    assert len(groups) == 8  # four a layer
    assert {group["scheme"] for group in groups.values()} <= {"static", "row", "fp32"}
    assert report["int8"]["routes"]["main"]["mean_cosine"] > 0.99
    assert report["parity"]["mean_cosine"] >= 0.995
    exact = compile_here(plain_bert).manifest
    assert exact.space_id == manifest.space_id
    assert exact.requires.cpu_features == ()


def test_compile_again_gives_the_same_bytes(plain_bert: Path, compile_here: CompileHere) -> None:
    first = compile_here(plain_bert, precision="int8")
    again = compile_here(plain_bert, precision="int8", refresh=True)
    assert again.artifact_id == first.artifact_id


@pytest.mark.parametrize(
    ("features", "levels", "needed"),
    [({"avx2"}, 63, ()), ({"avx512_vnni", "avx_vnni"}, 127, ("avx512_vnni",))],
)
def test_weights_keep_7_bits_without_integer_dot_products(
    features: set[str],
    levels: int,
    needed: tuple[str, ...],
    plain_bert: Path,
    compile_here: CompileHere,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(formats, "cpu_features", lambda: frozenset(features))
    monkeypatch.setattr(host, "cpu_features", lambda: frozenset(features))
    artifact = compile_here(plain_bert, precision="int8")
    assert artifact.manifest.tuning["int8"]["levels"] == levels
    assert artifact.manifest.requires.cpu_features == needed
    if needed:
        monkeypatch.setattr(host, "cpu_features", lambda: frozenset({"avx2"}))
        with pytest.raises(ArtifactIncompatible, match="CPUs with avx512_vnni"):
            open_artifact(artifact.path)


def test_calibrate_on_a_file(plain_bert: Path, compile_here: CompileHere, tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("the river\nthe old bridge of stone\nbread, water, salt\n" * 4)
    options: Any = {"precision": "int8", "calibrate": str(file)}
    artifact = compile_here(plain_bert, **options)
    assert artifact.report()["int8"]["calibrated_on"] == "the user's texts"
    chosen = CompileOptions(precision=Precision.INT8, calibrate=str(file))
    before = compile_key({"name": "m"}, chosen)
    file.write_text("another text\n")
    assert compile_key({"name": "m"}, chosen) != before


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (None, InputError, "cannot read .*texts.jsonl"),
        ("", InvalidOption, "holds no text to calibrate with"),
        ('{"text": 3}\n', InputError, "texts.jsonl, line 1"),
        ("{\n", InputError, "texts.jsonl, line 1"),
    ],
)
def test_calibration_file_refused(
    content: str | None,
    error: type[Exception],
    message: str,
    plain_bert: Path,
    compile_here: CompileHere,
    tmp_path: Path,
) -> None:
    file = tmp_path / "texts.jsonl"
    if content is not None:
        file.write_text(content)
    with pytest.raises(error, match=message):
        compile_here(plain_bert, precision="int8", calibrate=str(file))


def test_gate_holds_int8(
    plain_bert: Path, compile_here: CompileHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rough(choices: Any, levels: int) -> QuantizeLinearsPass:
        return QuantizeLinearsPass(choices, 2)

    monkeypatch.setattr(formats, "QuantizeLinearsPass", rough)
    with pytest.raises(ParityError, match=r"cosine to sentence-transformers is .* nothing was"):
        compile_here(plain_bert, precision="int8")


def test_static_models_have_nothing_to_quantise(tmp_path: Path, compile_here: CompileHere) -> None:
    folder = model2vec_folder(tmp_path / "model")
    with pytest.raises(CompileError, match="no matrix product to quantise: compile it in fp32"):
        compile_here(folder, precision="int8")
