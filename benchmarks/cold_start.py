"""Cold start: seconds from starting Python to the first vector, in fresh processes, alternating.

    python -m benchmarks.cold_start [--model M] [--systems A,B] [--rounds 7]

What is exported or compiled ahead of time is ready; files come from the page cache, since every
system runs once before its first round.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.options import parser, write
from benchmarks.process import NotRun
from benchmarks.results import ANCHOR, Store, spread
from benchmarks.subject import Subject, subject
from benchmarks.table import REFERENCE, system_names
from benchmarks.tables import cold_start_table

SLOW_S = 30.0  # a system that takes longer has one round


def main() -> None:
    """Measure and print."""
    options = parser("Cold start to the first vector")
    options.add_argument("--systems", type=system_names, default=f"{ANCHOR},{REFERENCE}")
    options.add_argument("--rounds", type=int, default=7)
    arguments = options.parse_args()
    target = subject(arguments.model, arguments.data)
    found = measure(target, arguments.systems, arguments.rounds)
    print(cold_start_table(rows(found)))
    write({"model": target.model.name, "cold_start": found}, arguments.json)


def run(target: Subject, systems: Sequence[str], store: Store, rounds: int) -> None:
    """Measure into ``store`` unless it is there."""
    if store.get("cold_start") is None:
        store.put(measure(target, systems, rounds), "cold_start")
    print(f"\ncold start:\n{cold_start_table(rows(store.get('cold_start')))}", flush=True)


def measure(target: Subject, systems: Sequence[str], rounds: int) -> dict[str, Any]:
    """Return the seconds of every start, by system, or why a system did not run."""
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    reasons: dict[str, str] = {}
    for warm_up in (True, *[False] * rounds):
        for name in systems:
            if name in reasons or (seconds[name] and seconds[name][0] > SLOW_S):
                continue
            try:
                process = target.start(name)
            except NotRun as error:
                reasons[name] = str(error)
                continue
            process.close()
            if not warm_up:
                seconds[name].append(process.seconds)
    measured = {name: values for name, values in seconds.items() if name not in reasons}
    return {"systems": list(systems), "seconds": measured, "not_run": reasons}


def rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row a system: median, fastest, slowest, and the ratio of medians."""
    made: list[dict[str, Any]] = []
    ours = found["seconds"].get(ANCHOR)
    for name in found["systems"]:
        values = found["seconds"].get(name)
        if not values:
            made.append({"system": name, "not_run": found["not_run"].get(name, "")})
            continue
        median, low, high = spread(values)
        row = {"system": name, "median_s": median, "low_s": low, "high_s": high}
        made.append(row | ({"ratio": median / spread(ours)[0]} if ours else {}))
    return made


if __name__ == "__main__":
    main()
