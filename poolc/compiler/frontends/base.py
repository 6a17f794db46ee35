"""What every way from a model's folder to its canonical graph does."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import onnx_ir as ir
from transformers import PreTrainedTokenizerBase

from poolc.compiler.comparison import Reference, Subject
from poolc.compiler.events import Progress
from poolc.compiler.recognize import Recognized
from poolc.spec import CompileOptions


class Frontend(Protocol):
    """One compile's way; its methods are called in this order."""

    def recognize(
        self, folder: Path, work: Path, options: CompileOptions, progress: Progress
    ) -> tuple[Recognized, PreTrainedTokenizerBase]:
        """Say what the model is; ``work`` is a folder for files that are needed until the end."""
        ...

    def graphs(self, subject: Subject, progress: Progress) -> dict[str, ir.Model]:
        """Return the canonical graph of each route ("": the only one); announces its stages."""
        ...

    def reference(self, subject: Subject) -> Reference:
        """Return what the artifact is compared with."""
        ...
