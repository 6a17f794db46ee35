"""``poolc bench serve`` to any path: Infinity's OpenAI dialect is not below ``/v1``.

    python -m benchmarks.generator PATH URL [the options of `poolc bench serve`]

Texts are sent with vLLM's truncation, which the others pass over or know.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace

from poolc.bench import asks as bench_asks
from poolc.cli.main import main


def _sent_to(path: str) -> None:
    make = bench_asks.asks

    def asks(
        texts: Sequence[str], dialect: bench_asks.Dialect, model: str, per_request: int
    ) -> list[bench_asks.Ask]:
        return [
            _truncated(replace(one, path=path)) for one in make(texts, dialect, model, per_request)
        ]

    bench_asks.asks = asks


def _truncated(ask: bench_asks.Ask) -> bench_asks.Ask:
    body = {**json.loads(ask.body), "truncate_prompt_tokens": -1}
    return replace(ask, body=json.dumps(body).encode())


if __name__ == "__main__":
    _sent_to(sys.argv[1])
    main(["bench", "serve", *sys.argv[2:]])
