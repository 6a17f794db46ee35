"""Compiling on the machine with the GPU, in many processes: the gate then runs on the device."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

CUDA, TENSORRT = "cuda", "tensorrt"
PRECISIONS = {CUDA: ("fp32", "fp16", "bf16"), TENSORRT: ("fp32", "fp16", "bf16", "fp8")}
# Of the models that are timed; what TensorRT has by default is three times as many, which it times
# one after the other.
_PROFILES = "batch=1,seq=16;batch=1..256,seq=1..64;batch=1..32,seq=1..512"
# Beside mean pooling, of which every family is compiled: (family, head of tests/matrix).
OTHER_HEADS = (
    ("bert", "single-label"),
    ("bert", "splade"),
    ("bert", "colbert"),
    ("bert", "tokens"),
    ("xlm-roberta", "cross-encoder"),
    ("modernbert", "single-label"),
    ("qwen3", "single-label"),
    ("llama", "last"),
)
_SHAPE_THREADS, _FAMILY_THREADS = 4, 1  # of PyTorch, in each of many processes


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a model is compiled for."""

    target: str
    precision: str

    @property
    def name(self) -> str:
        """As lines and files call it."""
        return self.precision if self.target == CUDA else f"{self.target} {self.precision}"


def compile_shape(folder: str, wanted: Wanted, output: str) -> dict[str, Any]:
    """Compile a model folder, and return what its gate found."""
    options = {} if wanted.target == CUDA else {"profiles": _PROFILES}
    _limit_threads(_SHAPE_THREADS)
    found = _compiled(Path(folder), wanted, Path(output), options)
    return {"model": Path(folder).name, **found}


def compile_family(name: str, wanted: Wanted, head: str = "mean") -> dict[str, Any]:
    """Compile a small model of a family with seeded weights, and return what its gate found."""
    from tests.matrix.families import FAMILIES
    from tests.matrix.heads import HEADS

    _limit_threads(_FAMILY_THREADS)
    with TemporaryDirectory() as temporary:
        root = Path(temporary)
        (root / "model").mkdir()
        found: dict[str, Any] = {"family": name if head == "mean" else f"{name}/{head}"}
        try:
            HEADS[head].build(FAMILIES[name], root / "model")
        except AttributeError as error:  # a family that this transformers does not have
            return {**found, **asdict(wanted), "absent": str(error)}
        return {**found, **_compiled(root / "model", wanted, root / "artifact", {})}


def _limit_threads(threads: int) -> None:
    import torch
    import transformers

    torch.set_num_threads(threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def _compiled(
    folder: Path, wanted: Wanted, output: Path, options: dict[str, Any]
) -> dict[str, Any]:
    from poolc.api import make_options
    from poolc.compiler.events import Progress
    from poolc.compiler.pipeline import Request, compile_model
    from poolc.errors import PoolcError
    from poolc.model_cache.store import Store

    started = time.monotonic()
    found: dict[str, Any] = asdict(wanted)
    with TemporaryDirectory(dir=output.parent) as store:
        try:
            asked = make_options(**asdict(wanted), **options)
            request = Request(str(folder), asked, output=output)
            artifact = compile_model(request, Store(Path(store)), Progress(lambda event: None))
        except PoolcError as error:
            return {**found, "failed": f"{type(error).__name__}: {error}"}
    parity = artifact.report()["parity"]
    kept = ("scope", "max_relative_error", "worst_cosine", "invariance_max_abs", "longest_tokens")
    found |= {name: parity[name] for name in kept}
    kind = "layout" if wanted.target == CUDA else "attention_kernels"
    found["layout"] = artifact.manifest.tuning[kind]["main"]
    return {**found, "seconds": round(time.monotonic() - started, 1)}
