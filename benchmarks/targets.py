"""The bounds that poolc is held to on a CPU, and what the results say of them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import cold_start, latency, quality
from benchmarks.results import ANCHOR, throughput_rows
from benchmarks.table import BY_NAME, REFERENCE
from benchmarks.tables import label, table

INT8 = "poolc-int8"
OPENVINO_INT8 = "sentence-transformers-openvino-int8"
# Programs that we wrote over OpenVINO's own interface: no product that a user could pick instead,
# so they are compared, and no bound speaks of them.
OWN_PROGRAMS = ("openvino", "openvino-default", "openvino-int8")
VLLM = ("vllm-cpu", "vllm-cpu-default")
FIXED = ("fixed-128", "fixed-512")
MB = 1e6
Results = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Target:
    """A bound, and what was measured; ``unit`` is ``x`` for ratios. None: there is no bound."""

    title: str
    bound: float | None
    measured: float
    unit: str = "x"
    at_most: bool = False

    @property
    def met(self) -> bool:
        """Say whether what was measured keeps the bound."""
        if self.bound is None:
            return True
        return self.measured <= self.bound if self.at_most else self.measured >= self.bound


def targets_table(results: Sequence[Results]) -> str:
    """Return the table of all bounds that these results can speak of."""
    rows = []
    for result in results:
        title = result["model"]["title"]
        rows += [[f"{title}: {t.title}", *_figures(t)] for t in targets(result)]
    return table(("what", "bound", "measured", ""), rows)


def _figures(target: Target) -> list[str]:
    measured = f"{target.measured:.3g} {target.unit}".rstrip()
    if target.bound is None:
        return ["", measured, "for comparison"]
    sign = "at most" if target.at_most else "at least"
    bound = f"{sign} {target.bound:.3g} {target.unit}".rstrip()
    return [bound, measured, "met" if target.met else "**short**"]


def targets(result: Results) -> Iterator[Target]:
    """Yield the bounds of one model."""
    if result["model"]["name"] == "minilm":
        yield from _trained(result)
    else:
        yield from _random(result)


def _trained(result: Results) -> Iterator[Target]:
    rates = _rates(result, "mixed")
    vllm = max(VLLM, key=lambda name: rates.get(name, 0.0))
    for peer, bound in ((REFERENCE, 1.55), (vllm, 2.1), ("infinity", 1.6)):
        yield from _ratio(f"fp32 against {label(peer)}, mixed", bound, rates, ANCHOR, peer)
    yield from _ratio(f"int8 against {label(REFERENCE)}, mixed", 3.3, rates, INT8, REFERENCE)
    for peer, least in ((OPENVINO_INT8, 1.2), ("openvino-int8", None)):
        yield from _ratio(f"int8 against {label(peer)}, mixed", least, rates, INT8, peer)
    yield from _ratio(f"fp32 against {label('openvino')}, mixed", None, rates, ANCHOR, "openvino")
    yield from _quality(result)
    yield from _latency(result)
    yield from _cold_start(result)
    for row in result.get("resident", []):
        if row["system"] == "poolc serve, int8" and "after_bytes" in row:
            yield Target("memory of poolc serve, int8", 200, row["after_bytes"] / MB, "MB", True)


def _quality(result: Results) -> Iterator[Target]:
    figures = result.get("quality", {}).get("figures", {})
    if ANCHOR in figures and INT8 in figures:
        for task, before in figures[ANCHOR].items():
            bound, unit = (0.3, "%") if task in quality.CLASSES else (0.15, "")
            lost = before - figures[INT8][task]
            yield Target(f"int8, {task}, lost against fp32", bound, lost, unit, True)


def _latency(result: Results) -> Iterator[Target]:
    if "latency" not in result:
        return
    rows = latency.rows(result["latency"])
    p50 = {row["system"]: row["p50_ms"] for row in rows if row.get("kind") == "query"}
    for ours, bound in ((ANCHOR, 3.0), (INT8, 5.0)):
        if ours in p50 and REFERENCE in p50:
            title = f"{label(ours)}, p50 of a lone query against {label(REFERENCE)}"
            yield Target(title, bound, p50[REFERENCE] / p50[ours])


def _cold_start(result: Results) -> Iterator[Target]:
    if "cold_start" not in result:
        return
    rows = cold_start.rows(result["cold_start"])
    median = {row["system"]: row["median_s"] for row in rows if "median_s" in row}
    if ANCHOR in median:
        yield Target("fp32, cold start", 0.35, median[ANCHOR], "s", True)
        if REFERENCE in median:
            title = f"fp32, cold start against {label(REFERENCE)}"
            yield Target(title, 20, median[REFERENCE] / median[ANCHOR])


def _random(result: Results) -> Iterator[Target]:
    for workload, bound in (("mixed", 1.15), *((name, 0.97) for name in FIXED)):
        groups = result.get("throughput", {}).get(workload, {})
        ratios = {
            row["system"]: row["ratio"]
            for group in groups.values()
            for row in throughput_rows(group)
            if "ratio" in row and row["system"] != ANCHOR and _is_fp32(row["system"])
        }
        peers = [name for name in ratios if name not in OWN_PROGRAMS]
        if peers:
            best = min(peers, key=ratios.__getitem__)
            title = f"fp32 against the best peer ({label(best)}), {workload}"
            yield Target(title, bound, ratios[best])
        for name in (name for name in OWN_PROGRAMS if name in ratios):
            yield Target(f"fp32 against {label(name)}, {workload}", None, ratios[name])
    if result["model"]["name"] == "bert-base":
        for group in result.get("throughput", {}).get("fixed-128", {}).values():
            share = throughput_rows(group)[0].get("share_of_peak")
            if share is not None:
                yield Target("fp32, share of the peak, 128 tokens", 75, 100 * share, "%")
            return


def _is_fp32(system: str) -> bool:
    return BY_NAME[system].precision == "fp32"


def _rates(result: Results, workload: str) -> dict[str, float]:
    groups = result.get("throughput", {}).get(workload, {})
    rows = [row for group in groups.values() for row in throughput_rows(group)]
    return {r["system"]: r["tokens_per_second"] for r in rows if "tokens_per_second" in r}


def _ratio(
    title: str, bound: float | None, rates: Mapping[str, float], ours: str, theirs: str
) -> Iterator[Target]:
    if ours in rates and theirs in rates:
        yield Target(title, bound, rates[ours] / rates[theirs])
