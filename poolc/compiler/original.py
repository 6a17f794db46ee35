"""A process that answers as a model's own library does, one text at a time, in fp32.

    python -m poolc.compiler.original DESCRIPTOR

``poolc.compare.original`` starts it and speaks to it: one JSON line on standard input opens the
model, each further one names items; what comes back on the descriptor is a JSON line an event, and
behind an ``answer`` its arrays, as raw bytes. The numbers are those of the parity gate's reference.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from poolc.errors import MissingDependency, PoolcError
from poolc.model_cache.publish import staging
from poolc.model_cache.requests import resolved
from poolc.model_cache.serde import from_plain, to_plain
from poolc.model_cache.store import Store
from poolc.runtime.outputs import Float32
from poolc.runtime.request import Params
from poolc.spec import TOKEN_OUTPUTS, CompileOptions, ModelSpec, Task

if TYPE_CHECKING:
    from poolc.compiler.comparison import Case, Reference


def main() -> int:
    """Answer until standard input ends. Returns the exit code."""
    sink = os.fdopen(int(sys.argv[1]), "wb")
    try:
        _serve(sink)
    except PoolcError as error:
        _send(sink, {"event": "error", "type": type(error).__name__, "message": str(error)})
        return 1
    except Exception as error:  # the top frame of this process
        traceback.print_exc()
        first = next(iter(str(error).strip().splitlines()), "no message")
        message = f"{type(error).__name__}: {first}"
        _send(sink, {"event": "error", "type": "CompileError", "message": message})
        return 1
    return 0


def _serve(sink: BinaryIO) -> None:
    request = json.loads(sys.stdin.readline())
    with _opened(request, sink) as (reference, spec):
        from poolc.compiler.comparison import Case  # where PyTorch is known to be there
        from poolc.compiler.parity_texts import PARITY_MAX_LENGTH

        opened = {"event": "opened", "library": reference.name, "spec": to_plain(spec)}
        _send(sink, {**opened, "max_length": min(spec.max_length, PARITY_MAX_LENGTH)})
        for line in sys.stdin:
            asked = json.loads(line)
            items = [tuple(item) if isinstance(item, list) else item for item in asked["items"]]
            params = Params(prompt=asked["prompt"], truncate=True, side=asked["side"])
            rows = [_row(reference, Case(Task(asked["task"]), [item], params)) for item in items]
            _answer(sink, {name: [row[name] for row in rows] for name in rows[0]})


def _row(reference: Reference, case: Case) -> dict[str, Float32]:
    """Return the outputs of one item but for those with a row a token, which take much memory."""
    (row,) = reference.rows(case)
    return {name: values for name, values in row.items() if name not in TOKEN_OUTPUTS}


@contextmanager
def _opened(request: Mapping[str, Any], sink: BinaryIO) -> Iterator[tuple[Reference, ModelSpec]]:
    """Fetch and recognise the model as a compile does, and open its library."""
    options = from_plain(CompileOptions, request["options"], "options")
    if resolved(options).from_onnx and not options.from_onnx:
        raise MissingDependency(
            "the original model runs in its own library, which needs PyTorch: "
            'pip install "poolc[compile,cpu]"; or compare two artifacts'
        )
    from poolc.compiler import source
    from poolc.compiler.comparison import Subject
    from poolc.compiler.events import Progress
    from poolc.compiler.frontends import open_frontend

    progress = Progress(lambda event: _send(sink, event))
    store = Store(Path(request["store"]))
    with staging(store.artifacts) as work:  # gone with the process; the next one sweeps it up
        with progress.stage("original"):
            found = source.fetch(request["model"], options, store, progress)
            folder = source.materialize(found, None, options, work, progress)
            frontend = open_frontend(options)
            recognized, tokenizer = frontend.recognize(folder, work, options, progress)
            reference = frontend.reference(Subject(folder, recognized, tokenizer, options))
        yield reference, recognized.spec


def _answer(sink: BinaryIO, outputs: Mapping[str, list[Float32]]) -> None:
    """Send outputs by name, one row an item."""
    arrays = {name: np.stack(rows).astype("<f4") for name, rows in outputs.items()}
    shapes = {name: list(array.shape) for name, array in arrays.items()}
    _send(sink, {"event": "answer", "shapes": shapes}, *(a.tobytes() for a in arrays.values()))


def _send(sink: BinaryIO, event: Mapping[str, Any], *data: bytes) -> None:
    sink.write(json.dumps(event).encode() + b"\n")
    for block in data:
        sink.write(block)
    sink.flush()


if __name__ == "__main__":
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    sys.exit(main())
