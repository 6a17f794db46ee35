"""Recorded tunings: read, refused, used again; the same one gives the same bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from poolc.api import make_options
from poolc.compiler.tuning import choose as choosing
from poolc.compiler.tuning.candidates import NAMES
from poolc.compiler.tuning.choose import EFFORTS, Effort
from poolc.compiler.tuning.record import Tuning, parse
from poolc.errors import InputError, InvalidOption
from poolc.model_cache.requests import compile_key
from poolc.model_cache.tuning import tuning_record
from tests.compiler.conftest import CompileHere

CLS = {"pooling_type": "CLS"}


def write(path: Path, plain: Any) -> str:
    path.write_text(json.dumps(plain))
    return str(path)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time models of any size, in a moment."""
    monkeypatch.setattr(choosing, "_MIN_WEIGHTS", 0)
    monkeypatch.setitem(EFFORTS, "quick", Effort(2.0, ((2, 8),), (128, 256), 3))


def test_small_models_are_not_timed(
    plain_bert: Path, compile_here: CompileHere, tmp_path: Path
) -> None:
    quick = compile_here(plain_bert)
    off = compile_here(plain_bert, tune="off", output=tmp_path / "off")
    assert quick.artifact_id == off.artifact_id
    assert quick.report()["tuning"]["not_timed"].endswith("fewer than 1,000,000 are not timed")
    assert off.report()["tuning"] == {"mode": "off"}


@pytest.mark.usefixtures("timed")
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_recompiling_gives_the_same_bytes(
    precision: str, plain_bert: Path, compile_here: CompileHere, tmp_path: Path
) -> None:
    first = compile_here(plain_bert, precision=precision)
    report = first.report()["tuning"]
    assert report["mode"] == "quick"
    assert {"attention_layout", "pack_linears"} <= report["rewrites"].keys()
    again = compile_here(plain_bert, precision=precision, output=tmp_path / "again")
    named = compile_here(
        plain_bert, precision=precision, tune=str(first.path), output=tmp_path / "named"
    )
    assert first.artifact_id == again.artifact_id == named.artifact_id
    assert named.report()["tuning"] == {"mode": "recorded"}


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_every_rewrite_at_once(
    precision: str, plain_bert: Path, compile_here: CompileHere, tmp_path: Path
) -> None:
    tune = write(tmp_path / "all.json", {"rewrites": list(NAMES), "budget_tokens": 512})
    artifact = compile_here(plain_bert, precision=precision, pooler_config=CLS, tune=tune)
    tuning = artifact.manifest.tuning
    assert tuning["budget_tokens"] == 512
    assert {"pack_linears", "attention_layout", "pooled_rows"} <= {*tuning["rewrites"]}
    assert not {"rms_norm", "rotary"} & {*tuning["rewrites"]}  # BERT has none
    if precision == "int8":
        assert len(tuning["int8"]["groups"]["main"]) == 8


def test_what_is_read(tmp_path: Path) -> None:
    plain = {"rewrites": ["gemm"], "budget_tokens": 64, "int8": {"levels": 127}}
    record = tuning_record(write(tmp_path / "record.json", {**plain, "lone_threads": 2}))
    assert parse(record) == Tuning(("gemm",), 64, 2)
    assert parse(Tuning(("gemm",), 64, 2).to_plain()) == Tuning(("gemm",), 64, 2)
    assert parse(tuning_record(write(tmp_path / "b.json", {"tuning": plain}))).budget_tokens == 64


@pytest.mark.parametrize(
    ("plain", "error", "message"),
    [
        ({"other": 1}, InputError, "holds no tuning record: rewrites is missing"),
        ({"rewrites": ["gem"]}, InvalidOption, r"the rewrite 'gem'; .* did you mean gemm\?"),
        ({"rewrites": [], "budget_tokens": 0}, InvalidOption, "budget_tokens, at least 1"),
        ({"rewrites": [], "lone_threads": "2"}, InvalidOption, "lone_threads, at least 1; .*'2'"),
        ({"rewrites": "gemm"}, InvalidOption, "rewrites, a list of names"),
    ],
)
def test_records_refused(plain: Any, error: type[Exception], message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        parse(tuning_record(write(tmp_path / "record.json", plain)))


def test_modes(tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match=r"tune is 'ful'; allowed: quick.*did you mean full\?"):
        make_options(tune="ful")
    (tmp_path / "text.json").write_text("no json")
    with pytest.raises(InputError, match="holds no tuning record"):
        make_options(tune=tmp_path / "text.json")


def test_requests_differ_by_what_a_record_says(tmp_path: Path) -> None:
    record = write(tmp_path / "record.json", {"rewrites": ["gemm"]})
    keys = [compile_key({"name": "m"}, make_options(tune=one)) for one in ("off", record)]
    write(tmp_path / "record.json", {"rewrites": []})
    keys.append(compile_key({"name": "m"}, make_options(tune=record)))
    assert len({*keys, compile_key({"name": "m"}, make_options())}) == 4
