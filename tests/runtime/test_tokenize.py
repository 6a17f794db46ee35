"""Tokenising: the ids of AutoTokenizer, its truncation, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from poolc.errors import ArtifactCorrupt, InvalidOption, InvalidText, TextTooLong
from poolc.runtime import excerpts, tokenize
from poolc.runtime.engine import Engine
from poolc.runtime.items import check_items
from poolc.runtime.request import Item
from poolc.runtime.tokenize import Limits, TextTokenizer
from tests.models import MAX_LENGTH
from tests.runtime.texts import PAIRS, VARIED

LONG = " ".join(["bread needs flour water salt and yeast"] * 12)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
# Below 4 the special tokens of a RoBERTa pair leave no room.
LIMIT = st.integers(4, MAX_LENGTH)


class Kind:
    """One tokenizer of ours and the AutoTokenizer that it must equal."""

    def __init__(self, path: Path, auto: Any, *, has_type_ids: bool) -> None:
        self.path = path
        self.auto = auto
        self.has_type_ids = has_type_ids
        self.ours = TextTokenizer(path, Limits(MAX_LENGTH, len(auto), has_type_ids))

    def expected(self, item: Item, **options: Any) -> tuple[list[int], list[int] | None]:
        texts = (item,) if isinstance(item, str) else item
        encoded = self.auto(*texts, return_token_type_ids=self.has_type_ids, **options)
        types = encoded["token_type_ids"] if self.has_type_ids else None
        return encoded["input_ids"], types

    def encode(self, item: Any, **options: Any) -> tuple[list[int], list[int] | None]:
        (sequence,) = self.ours.encode([item], **options)
        ids, types = sequence.ids.tolist(), sequence.type_ids
        if types is None and self.has_type_ids:  # all of them 0
            return ids, [0] * len(ids)
        return ids, None if types is None else types.tolist()


@pytest.fixture(scope="session")
def wordpiece(
    tiny_embedder: Path, tiny_embedder_source: Path, auto_tokenizer: Callable[[Path], Any]
) -> Kind:
    """A BERT tokenizer, with segment ids."""
    return Kind(
        tiny_embedder / "tokenizer.json", auto_tokenizer(tiny_embedder_source), has_type_ids=True
    )


@pytest.fixture(scope="session")
def byte_bpe(
    tiny_cross_encoder: Path,
    tiny_cross_encoder_source: Path,
    auto_tokenizer: Callable[[Path], Any],
) -> Kind:
    """A RoBERTa tokenizer, without."""
    return Kind(
        tiny_cross_encoder / "tokenizer.json",
        auto_tokenizer(tiny_cross_encoder_source),
        has_type_ids=False,
    )


@pytest.fixture(scope="session", params=["wordpiece", "byte_bpe"])
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.getfixturevalue(request.param)
    return found


# Equal to AutoTokenizer.


@pytest.mark.parametrize("item", [*VARIED, *PAIRS])
def test_ids_equal_auto_tokenizer(kind: Kind, item: Item) -> None:
    assert kind.encode(item) == kind.expected(item)


@given(text=TEXT)
@settings(deadline=None)
def test_ids_equal_auto_tokenizer_on_any_text(kind: Kind, text: str) -> None:
    assert kind.encode(text, truncate=True) == kind.expected(
        text, truncation=True, max_length=MAX_LENGTH
    )


def test_ids_without_special_tokens(kind: Kind) -> None:
    expected = kind.expected("the lazy dog", add_special_tokens=False)
    assert kind.encode("the lazy dog", add_special_tokens=False) == expected


def test_pairs_have_segments(wordpiece: Kind) -> None:
    ids, types = wordpiece.encode(("the fox", "the dog"))
    assert types == [0] * 4 + [1] * 3
    assert len(ids) == 7


@pytest.mark.parametrize("limit", [4, 5, 6, 7, 11, 32, 63, 64])
@pytest.mark.parametrize("item", [LONG, "a", (LONG, "the dog"), ("the dog", LONG), (LONG, LONG)])
def test_truncation_equals_auto_tokenizer(kind: Kind, item: Item, limit: int) -> None:
    expected = kind.expected(item, truncation=True, max_length=limit)
    assert kind.encode(item, truncate=True, max_length=limit) == expected


@given(left=TEXT, right=TEXT, limit=LIMIT)
@settings(deadline=None)
def test_truncation_of_any_pair(kind: Kind, left: str, right: str, limit: int) -> None:
    expected = kind.expected((left, right), truncation=True, max_length=limit)
    assert kind.encode((left, right), truncate=True, max_length=limit) == expected


@given(item=TEXT | st.tuples(TEXT, TEXT), limit=LIMIT)
@settings(deadline=None)
def test_truncated_says_exactly_whether_it_was_cut(kind: Kind, item: Item, limit: int) -> None:
    (sequence,) = kind.ours.encode([item], truncate=True, max_length=limit)
    assert sequence.truncated == (len(kind.expected(item)[0]) > limit)


def test_truncated_ids(kind: Kind) -> None:
    cut, whole = kind.ours.encode([[5, 6, 7, 8], [5, 6]], truncate=True, max_length=3)
    assert (cut.ids.tolist(), cut.truncated) == ([5, 6, 7], True)
    assert (whole.ids.tolist(), whole.truncated) == ([5, 6], False)


@pytest.mark.parametrize("limit", [1, 2])
def test_limit_of_special_tokens_alone(kind: Kind, limit: int) -> None:
    if limit == 2:
        assert len(kind.encode(LONG, truncate=True, max_length=2)[0]) == 2
        return
    with pytest.raises(InvalidOption, match="max_length is 1, but the special tokens alone are 2"):
        kind.encode(LONG, truncate=True, max_length=1)


def test_limit_below_the_special_tokens_of_a_pair(kind: Kind) -> None:
    with pytest.raises(InvalidOption, match=r"special tokens alone are [34]") as caught:
        kind.encode(("a", "b"), truncate=True, max_length=2)
    assert caught.value.param == "max_length"


def test_limit_of_one_without_special_tokens(kind: Kind) -> None:
    ids, _ = kind.encode(LONG, truncate=True, max_length=1, add_special_tokens=False)
    assert ids == kind.expected(LONG, add_special_tokens=False)[0][:1]


@pytest.mark.parametrize("limit", [0, -1, MAX_LENGTH + 1, True, 8.0, "8"])
def test_max_length_that_the_model_does_not_have(kind: Kind, limit: Any) -> None:
    with pytest.raises(InvalidOption, match="this model takes 1 to 64") as caught:
        kind.encode("a", max_length=limit)
    assert caught.value.param == "max_length"


# Token ids.


@pytest.mark.parametrize(
    "ids", [[2, 7, 3], np.array([2, 7, 3]), np.array([2, 7, 3], np.uint8), [np.int32(2), 7, 3]]
)
def test_ids_are_used_as_they_are(wordpiece: Kind, ids: Any) -> None:
    assert wordpiece.encode(ids) == ([2, 7, 3], [0, 0, 0])


def test_ids_take_no_prefix(kind: Kind) -> None:
    text, ids = kind.ours.encode(["dog", [5, 6]], prefix="the ")
    assert text.ids.tolist() == kind.expected("the dog")[0]
    assert ids.ids.tolist() == [5, 6]


def test_prefix_goes_before_the_left_of_a_pair(kind: Kind) -> None:
    assert kind.encode(("fox", "dog"), prefix="the ") == kind.expected(("the fox", "dog"))


# Refused.

NOT_IDS = "token ids must be whole numbers"
OUTSIDE = "is outside the vocabulary"


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("", "item 1 is empty"),
        (("a", ""), "item 1 is empty"),
        ([], "empty list of token ids"),
        (np.array([], np.int64), "empty list of token ids"),
        (5, "item 1 is int; allowed: a string"),
        (None, "item 1 is NoneType"),
        (b"bytes", "item 1 is bytes"),
        ({"text": "a"}, "item 1 is dict"),
        (np.array(5), "item 1 is ndarray"),
        (("a", "b", "c"), "a pair must be two strings"),
        (("a",), "a pair must be two strings"),
        (("a", 5), "a pair must be two strings"),
        ((1, 2), "a pair must be two strings"),
        ("lone \ud800", "lone surrogate at position 5"),
        (("a", "\udfff"), "lone surrogate at position 0"),
        ([1.0], NOT_IDS),
        ([True], NOT_IDS),
        (["a"], NOT_IDS),
        ([[1]], NOT_IDS),
        (np.array([1.5]), NOT_IDS),
        (np.array([[1]]), NOT_IDS),
        ([3, -1], f"token id -1 {OUTSIDE}"),
        ([10**6, 3], f"token id 1000000 {OUTSIDE}"),
        ([2**70], OUTSIDE),
        (np.array([2**64 - 1], np.uint64), f"token id 18446744073709551615 {OUTSIDE}"),
    ],
)
def test_refused_items(wordpiece: Kind, item: Any, message: str) -> None:
    with pytest.raises(InvalidText, match=message) as caught:
        wordpiece.ours.encode(["fine", item])
    assert caught.value.index == 1
    with pytest.raises(InvalidText, match=message):
        wordpiece.ours.check(["fine", item])


def test_first_and_last_id_of_the_vocabulary(wordpiece: Kind) -> None:
    last = wordpiece.ours.limits.vocab_size - 1
    assert wordpiece.encode([0, last])[0] == [0, last]
    with pytest.raises(InvalidText, match=rf"token id {last + 1} .* \(0 to {last}\)"):
        wordpiece.encode([last + 1])


def test_check_items_without_a_vocabulary() -> None:
    check_items(["a", ("a", "b"), [10**9]])


@pytest.mark.parametrize("item", [LONG, ("a", LONG), [5] * 65])
def test_too_long(kind: Kind, item: Any) -> None:
    message = "item 1 has [0-9]+ tokens; the limit is 64: .*truncate=True"
    with pytest.raises(TextTooLong, match=message) as caught:
        kind.ours.encode(["fine", item])
    assert caught.value.index == 1


def test_too_long_for_the_request(kind: Kind) -> None:
    with pytest.raises(TextTooLong, match="item 0 has 4 tokens; the limit is 3"):
        kind.ours.encode([[5, 6, 7, 8]], max_length=3)


def test_no_tokens(wordpiece: Kind) -> None:
    with pytest.raises(InvalidText, match="item 0 has no tokens"):
        wordpiece.encode(" ", add_special_tokens=False)


def test_errors_name_the_given_index(kind: Kind) -> None:
    with pytest.raises(InvalidText, match="item 70 is empty") as caught:
        kind.ours.encode(["a", ""], indices=[7, 70])
    assert caught.value.index == 70


def test_tokenizer_file_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text("{}")
    with pytest.raises(ArtifactCorrupt, match=r"tokenizer\.json cannot be read"):
        TextTokenizer(path, Limits(8, 8, has_type_ids=False))


# Very long texts.

WORDS = " ".join(f"{i} bread, needs: flour 東京 {i * i}" for i in range(20_000))


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("limit", [5, 64])
def test_very_long_text_is_cut_as_if_it_was_read(
    kind: Kind, monkeypatch: pytest.MonkeyPatch, side: str, limit: int
) -> None:
    ours = TextTokenizer(kind.path, Limits(64, len(kind.auto), kind.has_type_ids, side))
    text = WORDS[:100_000]
    assert excerpts.is_long(text, limit)
    items: list[Item] = [
        text,
        (text, "the dog"),
        ("the dog", text),
        (text, text[:50_000]),
        (text[9:], text),
    ]
    found = ours.encode(items, truncate=True, max_length=limit)
    monkeypatch.setattr(tokenize, "is_long", lambda *_: False)
    for short, whole in zip(
        found, ours.encode(items, truncate=True, max_length=limit), strict=True
    ):
        assert short.ids.tolist() == whole.ids.tolist()
        assert short.truncated


def test_very_long_text_is_not_read_to_its_end(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    count, batch = kind.ours._count, kind.ours._batch

    def counted(texts: Any) -> Any:
        read.extend(map(len, texts))
        return count(texts)

    def batched(texts: Any, *args: Any, **options: Any) -> Any:
        read.extend(map(len, texts))
        return batch(texts, *args, **options)

    monkeypatch.setattr(kind.ours, "_count", counted)
    monkeypatch.setattr(kind.ours, "_batch", batched)
    with pytest.raises(TextTooLong, match=r"item 1 has at least [0-9]+ tokens; the limit is 64"):
        kind.ours.encode(["fine", WORDS])
    kind.ours.encode([WORDS], truncate=True)
    assert sum(read) < 50_000


@pytest.mark.parametrize("text", [" " * 200_000 + "a dog", "x" * 200_000])
def test_long_text_of_few_tokens_is_read(wordpiece: Kind, text: str) -> None:
    for truncate in (True, False):
        (sequence,) = wordpiece.ours.encode([text], truncate=truncate)
        assert sequence.ids.tolist() == wordpiece.expected(text)[0]


@pytest.mark.parametrize("truncate", [True, False])
@pytest.mark.parametrize("item", [" " * 1_100_000 + "a dog", ("a", "x" * 1_100_000)])
def test_millions_of_characters_of_few_tokens_are_refused(
    wordpiece: Kind, item: Item, truncate: bool
) -> None:
    with pytest.raises(
        TextTooLong, match=r"item 1 has 1100[0-9]+ characters; .* 1048576"
    ) as caught:
        wordpiece.ours.encode(["a", item], truncate=truncate)
    assert caught.value.index == 1


def test_pair_of_millions_of_characters_is_refused(wordpiece: Kind) -> None:
    with pytest.raises(TextTooLong, match=r"item 0 has 1400[0-9]+ characters"):
        wordpiece.ours.encode([("bread " * 233_400, "bread " * 10_000)], truncate=True)


def test_many_items_are_tokenised_in_runs(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []
    batch = kind.ours._batch

    def batched(texts: Any, *args: Any, **options: Any) -> Any:
        runs.append(len(texts))
        return batch(texts, *args, **options)

    monkeypatch.setattr(kind.ours, "_batch", batched)
    found = kind.ours.encode([f"dog {i % 10}" for i in range(3000)], indices=range(7, 3007))
    assert runs == [1024, 1024, 952]
    assert found[2999].ids.tolist() == kind.expected("dog 9")[0]
    runs.clear()
    kind.ours.encode(["a b " * 50_000, "a", "b c " * 25_000, "b"], truncate=True)
    assert runs == [1, 2, 1, 2], "an excerpt of the first of two, then both"


def test_check_lengths_knows_what_normalising_adds(tmp_path: Path) -> None:
    """One character becomes eighteen, each of them a token."""
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    ours = TextTokenizer(tmp_path / "tokenizer.json", Limits(64, 1, has_type_ids=False))
    ours.check_lengths(["a" * 64, "\ufdfa" * 3, ("\ufdfa", "b" * 46)])
    for item in ("\ufdfa" * 4, ("\ufdfa", "b" * 47)):
        with pytest.raises(TextTooLong, match=r"item 9 has [67][0-9] tokens"):
            ours.check_lengths(["a", item], indices=[8, 9])


# Together.


def test_mixed_items_keep_their_order(wordpiece: Kind) -> None:
    items: list[Item] = [[5, 6], "a fox", ("a", "dog"), [7], "a river"]
    together = [sequence.ids.tolist() for sequence in wordpiece.ours.encode(items)]
    assert together == [wordpiece.encode(item)[0] for item in items]


def test_threads_with_different_limits(kind: Kind) -> None:
    """Truncation is state of the library's tokenizer: one request's must not reach another's."""

    def lengths(limit: int | None) -> set[int]:
        made = [kind.ours.encode([LONG[:150]] * 3, truncate=limit is not None, max_length=limit)]
        made += [kind.ours.encode(["the lazy dog", LONG[:150]], truncate=True) for _ in range(20)]
        return {len(sequence) for sequence in made[0]} | {len(m[1]) for m in made[1:]}

    limits = [None, 4, 5, 8, 13, 21, 30, 36]
    whole = len(kind.expected(LONG[:150])[0])
    with ThreadPoolExecutor(len(limits)) as pool:
        found = list(pool.map(lengths, limits))
    assert found == [{min(limit or whole, whole), whole} for limit in limits]


def test_engine_tokenize(embedder: Engine, wordpiece: Kind) -> None:
    assert embedder.tokenize("the lazy dog") == wordpiece.expected("the lazy dog")[0]
    assert (
        embedder.tokenize("the dog", add_special_tokens=False)
        == (wordpiece.expected("the dog", add_special_tokens=False)[0])
    )
    with pytest.raises(TextTooLong):
        embedder.tokenize(LONG)
