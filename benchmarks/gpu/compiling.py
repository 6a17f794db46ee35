"""Compiling on the machine with the GPU, in many processes: the gate then runs on the device."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

PRECISIONS = ("fp32", "fp16", "bf16")


def compile_shape(folder: str, precision: str, output: str) -> dict[str, Any]:
    """Compile a model folder for cuda, and return what its gate found."""
    return {"model": Path(folder).name, **_compiled(Path(folder), precision, Path(output), 4)}


def compile_family(name: str, precision: str) -> dict[str, Any]:
    """Compile a small model of a family with seeded weights, and return what its gate found."""
    from tests.matrix.families import FAMILIES
    from tests.matrix.heads import HEADS

    with TemporaryDirectory() as temporary:
        root = Path(temporary)
        (root / "model").mkdir()
        found: dict[str, Any] = {"family": name}
        try:
            HEADS["mean"].build(FAMILIES[name], root / "model")
        except AttributeError as error:  # a family that this transformers does not have
            return {**found, "precision": precision, "absent": str(error)}
        return {**found, **_compiled(root / "model", precision, root / "artifact", 1)}


def _compiled(folder: Path, precision: str, output: Path, threads: int) -> dict[str, Any]:
    import torch
    import transformers

    from poolc.api import make_options
    from poolc.compiler.events import Progress
    from poolc.compiler.pipeline import Request, compile_model
    from poolc.errors import PoolcError
    from poolc.model_cache.store import Store

    torch.set_num_threads(threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    started = time.monotonic()
    found: dict[str, Any] = {"precision": precision}
    request = Request(str(folder), make_options(target="cuda", precision=precision), output=output)
    with TemporaryDirectory(dir=output.parent) as store:
        try:
            artifact = compile_model(request, Store(Path(store)), Progress(lambda event: None))
        except PoolcError as error:
            return {**found, "failed": f"{type(error).__name__}: {error}"}
    parity = artifact.report()["parity"]
    kept = ("scope", "max_relative_error", "worst_cosine", "invariance_max_abs", "longest_tokens")
    found |= {name: parity[name] for name in kept}
    found["layout"] = artifact.manifest.tuning["layout"]["main"]
    return {**found, "seconds": round(time.monotonic() - started, 1)}
