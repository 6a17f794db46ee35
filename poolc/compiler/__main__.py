"""The compiler's process: one JSON request on standard input, events as JSON lines on a descriptor.

``poolc.api`` starts it, so that torch never enters a serving process. Standard output of the
libraries goes to standard error; the events have a descriptor of their own.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any, TextIO

from poolc.compiler.events import Progress
from poolc.errors import MissingDependency, PoolcError
from poolc.model_cache.requests import resolved
from poolc.model_cache.serde import from_plain
from poolc.model_cache.store import Store
from poolc.spec import CompileOptions


def main() -> int:
    """Compile what standard input asks for. Returns the exit code."""
    events = os.fdopen(int(sys.argv[1]), "w", encoding="utf-8")
    try:
        _send(events, {"event": "result", **_compile(json.load(sys.stdin), events)})
    except PoolcError as error:
        _send(events, {"event": "error", "type": type(error).__name__, "message": str(error)})
        return 1
    except OSError as error:
        name = error.filename  # a descriptor's number says nothing elsewhere
        told = {
            "errno": error.errno,
            "strerror": error.strerror,
            "filename": os.fsdecode(name) if isinstance(name, str | bytes | Path) else None,
        }
        _send(events, {"event": "error", "type": "OSError", "message": str(error), **told})
        return 1
    except Exception as error:  # the top frame of this process
        traceback.print_exc()
        message = f"{type(error).__name__}: {_first_line(error)}"
        _send(events, {"event": "error", "type": "CompileError", "message": message})
        return 1
    return 0


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "no message")


def _compile(request: dict[str, Any], events: TextIO) -> dict[str, Any]:
    _quiet_libraries()
    progress = Progress(lambda event: _send(events, event))
    if request.get("rebuild"):
        return _rebuild(request, progress)
    options = from_plain(CompileOptions, request["options"], "options")
    try:
        with progress.stage("start"):  # importing torch takes seconds
            if not resolved(options).from_onnx:
                importlib.import_module("torch")  # transformers would blame itself
            from poolc.compiler.frontends import open_frontend
            from poolc.compiler.pipeline import Request, compile_model

            open_frontend(resolved(options))
    except ImportError as error:
        if error.name and error.name.startswith("poolc"):
            raise
        # A library that is there but broken raises without naming itself.
        problem = "which is not installed" if error.name else f"which fails: {error}"
        raise MissingDependency(
            f"compiling needs {error.name or 'the compile extra'}, {problem}: "
            'pip install "poolc[compile,cpu]" (for CPU-only machines, add '
            "--extra-index-url https://download.pytorch.org/whl/cpu); models that ship ONNX need "
            'only "poolc[compile-onnx,cpu]"'
        ) from error
    output, quality = request["output"], request["quality"]
    artifact = compile_model(
        Request(
            model=request["model"],
            options=options,
            output=Path(output) if output is not None else None,
            refresh=request["refresh"],
            quality=Path(quality) if quality is not None else None,
        ),
        Store(Path(request["store"])),
        progress,
    )
    return {"path": str(artifact.path), "seconds": progress.seconds}


def _rebuild(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    # No PyTorch and no transformers: serving machines have neither.
    from poolc.compiler.rebuild import rebuild

    store, device = Store(Path(request["store"])), int(request["device"])
    artifact = rebuild(Path(request["model"]), store, progress, device)
    return {"path": str(artifact.path), "seconds": progress.seconds}


def _quiet_libraries() -> None:
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")


def _send(events: TextIO, event: dict[str, Any]) -> None:
    events.write(json.dumps(event) + "\n")
    events.flush()


if __name__ == "__main__":
    sys.exit(main())
