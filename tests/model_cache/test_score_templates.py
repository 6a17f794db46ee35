"""What ``score_template`` may be given as."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from poolc.api import make_options
from poolc.errors import InvalidOption
from poolc.model_cache.requests import compile_key, folder_identity
from poolc.model_cache.score_templates import shipped_text, template_text

SOURCE = "{{ query }} | {{ document }}"


def test_template_text_of_every_form(tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text(SOURCE)
    assert template_text(SOURCE) == SOURCE
    assert template_text(tmp_path / "mine.jinja") == SOURCE
    assert template_text(str(tmp_path / "mine.jinja")) == SOURCE
    assert template_text("qwen3-reranker") == shipped_text("qwen3-reranker")


def test_template_text_is_what_a_request_is_looked_up_by(tmp_path: Path) -> None:
    path, identity = tmp_path / "mine.jinja", folder_identity("model", {})
    path.write_text(SOURCE)
    by_file = compile_key(identity, make_options(score_template=str(path)))
    assert by_file == compile_key(identity, make_options(score_template=SOURCE))
    path.write_text(SOURCE + "!")
    assert by_file != compile_key(identity, make_options(score_template=str(path)))
    assert make_options(score_template=None).score_template is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("qwen-reranker", "is 'qwen-reranker', which is neither a file .*; did you mean qwen3-re"),
        ("", "neither a file"),
        ("x" * 5000, "neither a file"),
        (3, "score_template is int; allowed: a template's name, file or text"),
    ],
)
def test_template_text_refused(given: Any, message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        make_options(score_template=given)


def test_template_text_of_a_file_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes("{{ query }} é".encode("latin-1"))
    with pytest.raises(InvalidOption, match="is not UTF-8"):
        template_text(tmp_path / "latin")
