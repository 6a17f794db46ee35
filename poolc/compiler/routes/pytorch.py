"""From weights: transformers' class, heads in torch, torch's exporter."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
from transformers import PreTrainedTokenizerBase

from poolc.compiler.architecture import load_weights
from poolc.compiler.comparison import Reference, Subject
from poolc.compiler.events import Progress
from poolc.compiler.export import export
from poolc.compiler.heads import PoolingModel
from poolc.compiler.recognize import Recognized, recognize
from poolc.compiler.reference import open_reference
from poolc.spec import CompileOptions


class PytorchRoute:
    """See ``Route``."""

    def recognize(
        self, folder: Path, work: Path, options: CompileOptions, progress: Progress
    ) -> tuple[Recognized, PreTrainedTokenizerBase]:
        """See ``Route.recognize``."""
        return recognize(folder, options, progress.warn)

    def graph(self, subject: Subject, progress: Progress) -> ir.Model:
        """See ``Route.graph``."""
        with progress.stage("load"):
            model = load(subject)
        with progress.stage("export"):
            return export(model)

    def reference(self, subject: Subject) -> Reference:
        """See ``Route.reference``."""
        return open_reference(subject)


def load(subject: Subject) -> PoolingModel:
    """Load the trunk and put its head behind it. Raises CorruptWeights."""
    recognized, folder = subject.recognized, subject.folder
    backbone = load_weights(
        folder / recognized.transformer,
        recognized.arch,
        trust_remote_code=subject.options.trust_remote_code,
        attention="sdpa",
    )
    return PoolingModel(backbone, recognized.spec, folder).eval()
