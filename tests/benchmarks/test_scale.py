"""The page of a billion documents says what its files say."""

from __future__ import annotations

import pytest

from benchmarks.scale import FAILURE, GPU_HOUR, PAGE, page, rates, read


def test_the_page_is_that_of_the_files() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(read())


def test_rates_are_those_of_the_measurement() -> None:
    found = read()["rates"]
    assert found == {
        "MiniLM-L6": 2493,
        "BERT-base": 2270,
        "BERT-large": 1182,
        "XLM-R-large": 1167,
    }
    with pytest.raises(KeyError, match="minilm-fp16"):
        rates({"bert-base-fp16": {"workloads": {"long": {"poolc": 2262.0}}}})


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
