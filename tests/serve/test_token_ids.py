"""Token ids in OpenAI's requests: whose they are taken for."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest

from poolc.errors import InputError, InvalidOption
from poolc.runtime.engine import Engine
from poolc.serve import token_ids
from poolc.serve.settings import Settings
from poolc.serve.token_ids import TokenIds
from tests.serve.conftest import MakeClient
from tests.serve.speaking import answer, refusal

# Some of cl100k's tokens, by their ids.
TOKENS = {1820: b"the", 4062: b"quick", 39935: b" fox", 220: b" ", 99: b"\xe2", 100: b"\x82\xac"}


@pytest.fixture
def vocabulary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in tiktoken's format that is small enough to write here."""
    monkeypatch.setattr(token_ids, "_NUM_TOKENS", len(TOKENS))
    path = tmp_path / "cl100k_base.tiktoken"
    lines = [base64.b64encode(token) + b" %d" % i for i, token in TOKENS.items()]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def test_cl100k_is_read_as_text(
    vocabulary: Path, make_client: MakeClient, embedder: Engine
) -> None:
    client = make_client(Settings(token_ids="cl100k", cl100k_file=str(vocabulary)), m=embedder)
    ids = [[1820, 220, 4062, 39935], [99, 100]]
    data = answer(client, "/v1/embeddings", input=ids)["data"]
    rows = np.array([entry["embedding"] for entry in data], np.float32)
    assert np.array_equal(rows, embedder.embed(["the quick fox", "€"], prompt=""))
    same = answer(client, "/v1/embeddings", input="the quick fox")["data"][0]
    assert same["embedding"] == pytest.approx(data[0]["embedding"], abs=1e-6)
    assert "no token 7" in refusal(client, "/v1/embeddings", input=[7])["message"]


def test_parts_of_characters(vocabulary: Path) -> None:
    policy = TokenIds(Settings(token_ids="cl100k", cl100k_file=str(vocabulary)))
    assert policy.items([[1820, 99]]) == ["the\ufffd"]


def test_refused(make_client: MakeClient, embedder: Engine) -> None:
    client = make_client(Settings(token_ids="refuse"), m=embedder)
    message = refusal(client, "/v1/embeddings", input=[[1, 2]])["message"]
    assert "item 0 is token ids" in message
    assert len(answer(client, "/v1/embeddings", input=["a", "b"])["data"]) == 2


def test_vocabulary_from_tiktoken_s_cache(
    vocabulary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidOption, match="give --cl100k-file"):
        TokenIds(Settings(token_ids="cl100k"))
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(vocabulary.parent))
    with pytest.raises(InputError, match="cannot read"):
        TokenIds(Settings(token_ids="cl100k"))
    # tiktoken's own name of the file.
    vocabulary.rename(vocabulary.parent / "9b5ad71b2ce5302211f9c61530b329a4922fc6a4")
    assert TokenIds(Settings(token_ids="cl100k")).items([[4062]]) == ["quick"]


@pytest.mark.parametrize("content", [b"not base64 at all", b"dGhl x", b"dGhl 1"])
def test_vocabulary_that_is_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(InputError, match="cl100k"):
        TokenIds(Settings(token_ids="cl100k", cl100k_file=str(tmp_path / "file")))
