"""Cold start: seconds from starting Python to the first vector, in fresh processes, alternating.

python -m benchmarks.cold_start [--rounds 7]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import poolc
from benchmarks.options import model_or_default, parser, write

PROGRAMS = {
    "poolc": "import poolc, sys; poolc.load(sys.argv[1]).embed(['a text'])",
    "sentence-transformers": (
        "import sys; from sentence_transformers import SentenceTransformer as S; "
        "S(sys.argv[1], device='cpu').encode(['a text'])"
    ),
}


def main() -> None:
    """Time both and print a table."""
    options = parser("Cold start to the first vector")
    options.add_argument("--rounds", type=int, default=7)
    arguments = options.parse_args()
    model = model_or_default(arguments.model)
    targets = {"poolc": str(poolc.compile(model).path), "sentence-transformers": model}
    seconds: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for warm_up in (True, *[False] * arguments.rounds):
        for name, program in PROGRAMS.items():
            start = time.perf_counter()
            subprocess.run(
                [sys.executable, "-c", program, targets[name]], check=True, capture_output=True
            )
            if not warm_up:
                seconds[name].append(time.perf_counter() - start)
    print("| system | median s | fastest | slowest |")
    print("| --- | --- | --- | --- |")
    for name, values in seconds.items():
        print(
            f"| {name} | {statistics.median(values):.2f} | {min(values):.2f} | {max(values):.2f} |"
        )
    write({"seconds": seconds}, arguments.json)


if __name__ == "__main__":
    main()
