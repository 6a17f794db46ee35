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
from poolc.compiler.heads.static import load_static
from poolc.compiler.recognize import Recognized, recognize
from poolc.compiler.reference import open_reference
from poolc.spec import CompileOptions, Trunk


class PytorchFrontend:
    """See ``Frontend``."""

    def recognize(
        self, folder: Path, work: Path, options: CompileOptions, progress: Progress
    ) -> tuple[Recognized, PreTrainedTokenizerBase]:
        """See ``Frontend.recognize``."""
        return recognize(folder, options, progress.warn)

    def graphs(self, subject: Subject, progress: Progress) -> dict[str, ir.Model]:
        """See ``Frontend.graphs``."""
        routes = {"": subject.recognized}
        routes |= {name: route.recognized for name, route in subject.recognized.routes.items()}
        with progress.stage("load"):
            models = {name: load(subject, recognized) for name, recognized in routes.items()}
        with progress.stage("export"):
            return {name: export(model) for name, model in models.items()}

    def reference(self, subject: Subject) -> Reference:
        """See ``Frontend.reference``."""
        return open_reference(subject)


def load(subject: Subject, recognized: Recognized) -> PoolingModel:
    """Load the trunk of one route and put its head behind it. Raises CorruptWeights."""
    path = subject.folder / recognized.transformer
    if recognized.arch.trunk is Trunk.STATIC:
        return PoolingModel(load_static(path), recognized.spec, subject.folder).eval()
    backbone = load_weights(
        path,
        recognized.arch,
        trust_remote_code=subject.options.trust_remote_code,
        attention="sdpa",
    )
    return PoolingModel(backbone, recognized.spec, subject.folder).eval()
