"""``poolc compare``: a table, JSON, a page, and an exit code for thresholds."""

from __future__ import annotations

import json
from pathlib import Path

from poolc.cli.exit_codes import BEYOND_THRESHOLD
from tests.cli.conftest import Cli


def test_table(cli: Cli, tiny_embedder: Path, text_file: Path) -> None:
    ran = cli("compare", tiny_embedder, tiny_embedder, "--data", text_file, "--seconds", "0")
    assert ran.code == 0
    assert "cosine" in ran.out
    assert "embed of 3 rows of in.txt" in ran.out


def test_json_and_page(cli: Cli, tiny_embedder: Path, text_file: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    ran = cli(
        *("compare", tiny_embedder, tiny_embedder, "--data", text_file, "--seconds", "0"),
        *("--json", "--html", page, "--dimensions", "8"),
    )
    found = json.loads(ran.out)
    assert (found["vectors"]["size"], found["rows"], found["broken"]) == (8, 3, [])
    assert found["same_space"] is True
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_thresholds_decide_the_exit_code(cli: Cli, tiny_embedder: Path, text_file: Path) -> None:
    command = ("compare", tiny_embedder, tiny_embedder, "--data", text_file, "--seconds", "0")
    kept = cli(*command, "--fail-under", "cosine=0.999", "--fail-over", "max-abs=0.001")
    assert kept.code == 0
    broken = cli(*command, "--fail-under", "cosine=1.5", "--fail-over", "max_abs=-1")
    assert broken.code == BEYOND_THRESHOLD
    assert "error: cosine is 1, less than 1.5" in broken.err
    assert "error: max_abs is 0, more than -1" in broken.err


def test_figure_that_does_not_exist(cli: Cli, tiny_embedder: Path, text_file: Path) -> None:
    ran = cli(
        *("compare", tiny_embedder, tiny_embedder, "--data", text_file),
        *("--fail-under", "cosinus=1"),
    )
    assert (ran.code, "did you mean cosine" in ran.err) == (2, True)
