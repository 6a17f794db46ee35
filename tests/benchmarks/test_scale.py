"""The page of a billion documents says what its files say."""

from __future__ import annotations

import pytest

from benchmarks.scale import FAILURE, GPU_HOUR, PAGE, page, rates, read


def test_the_page_is_that_of_the_files() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(read())


def test_rates_are_those_of_the_measurement() -> None:
    found = read()["rates"]
    assert found == {
        "MiniLM-L6": 2330,
        "BERT-base": 2262,
        "BERT-large": 1155,
        "XLM-R-large": 1174,
    }
    with pytest.raises(KeyError):
        rates(["BERT-base fp16 long: 2.35x Sentence Transformers, 2,262 against 962 texts/s"])


def test_costs_follow_from_rates() -> None:
    found = read()
    hours = 1e9 / found["rates"]["BERT-base"] / 3600
    text = page(found)
    assert f"| {hours:,.0f} | " in text
    assert f"| {hours * GPU_HOUR.value:,.0f} |" in text
    assert f"| failures | {hours * FAILURE.value:,.2g} |" in text


def test_ledger_of_the_page_lost_nothing() -> None:
    ledger = read()["ledger"]
    assert (ledger["parts"], ledger["opened_parts"]) == (1_000_000, 1_000_000)
    assert ledger["lost_parts"] == 0
    assert all(one["whole_lines"] == one["resumed"] for one in ledger["kills"] + ledger["cuts"])
