"""A text read in pieces has the ids of the text read whole."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from tokenizers.trainers import BpeTrainer, UnigramTrainer, WordPieceTrainer

from poolc.errors import TextTooLong
from poolc.runtime import pieces
from poolc.runtime.pieces import Tokens, read
from tests.models import CORPUS


def wordpiece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = WordPieceTrainer(vocab_size=300, special_tokens=["[UNK]"], show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def byte_bpe() -> Tokenizer:
    """As Llama 3's and Qwen's: digits in groups of three from the first, spaces with the word."""
    tokenizer = Tokenizer(models.BPE())
    words = Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def whole_text_bpe() -> Tokenizer:
    """As Llama 2's and Gemma's: the whole text is one word."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    trainer = BpeTrainer(vocab_size=300, special_tokens=["<unk>"], show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = UnigramTrainer(
        vocab_size=200, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


@pytest.fixture(scope="module", params=[wordpiece, byte_bpe, whole_text_bpe, unigram])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    made: Tokenizer = request.param()
    made.add_special_tokens(["</s>"])
    return made


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_CHARS", 1500)
    monkeypatch.setattr(pieces, "_OVERLAPS", (256, 1024))


def encoder(tokenizer: Tokenizer, sizes: list[int]) -> Callable[[str], Tokens]:
    def encode(text: str) -> Tokens:
        sizes.append(len(text))
        encoding = tokenizer.encode(text, add_special_tokens=False)
        places = np.array(encoding.offsets, np.int64).reshape(-1, 2)
        return Tokens(np.array(encoding.ids), places[:, 0], places[:, 1])

    return encode


def texts() -> Iterator[str]:
    words = " ".join(CORPUS).split()
    rng = random.Random(7)
    yield " ".join(rng.choices(words, k=4000))
    yield "".join(rng.choices(["東", "京", "é", "e\u0301", "👩\u200d👧", " ", "ﬁ", "a"], k=9000))
    yield " ".join(str(rng.randrange(10**9)) for _ in range(1500))
    yield "  \n\n\t ".join(rng.choices([*words, "</s>", "Zürich,", "!!!"], k=2000))
    yield "x" * 90 + " " + "".join(rng.choices("abcdefg  -", k=9000))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("text", list(texts()), ids=range(5))
def test_pieces_give_the_ids_of_the_whole(tokenizer: Tokenizer, text: str) -> None:
    sizes: list[int] = []
    parts = list(read(text, encoder(tokenizer, sizes), 0))
    expected = tokenizer.encode(text, add_special_tokens=False)
    assert np.concatenate([part.ids for part in parts]).tolist() == expected.ids
    starts = [start for start, _ in expected.offsets]
    assert np.concatenate([part.starts for part in parts]).tolist() == starts
    assert len(parts) > 4
    assert max(sizes) <= 1500 + 1024


@pytest.mark.usefixtures("small")
def test_every_cut_of_a_text(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    text = " ".join([*CORPUS * 4, "0123456789" * 9])
    expected = tokenizer.encode(text, add_special_tokens=False).ids
    for size in range(700, 760):
        monkeypatch.setattr(pieces, "PIECE_CHARS", size)
        parts = list(read(text, encoder(tokenizer, []), 0))
        assert np.concatenate([part.ids for part in parts]).tolist() == expected


@pytest.mark.usefixtures("small")
def test_longer_overlaps_where_pieces_do_not_agree() -> None:
    tokenizer = wordpiece()
    text = "bread needs flour " * 60 + " " * 700 + "water and salt " * 200
    parts = list(read(text, encoder(tokenizer, []), 0))
    expected = tokenizer.encode(text, add_special_tokens=False).ids
    assert np.concatenate([part.ids for part in parts]).tolist() == expected


@pytest.mark.usefixtures("small")
def test_text_whose_pieces_never_agree() -> None:
    text = "bread " * 100 + "x" * 5000
    message = "item 3 has 5600 characters, and those around character 3000 form no tokens"
    with pytest.raises(TextTooLong, match=message) as caught:
        list(read(text, encoder(wordpiece(), []), 3))
    assert caught.value.index == 3
