"""Families of the matrix as the pipeline hands them to targets."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from poolc.api import make_options
from poolc.compiler.comparison import Subject
from poolc.compiler.events import Progress
from poolc.compiler.frontends.pytorch import PytorchFrontend
from poolc.compiler.passes.strip_metadata import StripMetadataPass
from poolc.spec import ModelSpec
from tests.matrix.families import FAMILIES
from tests.matrix.heads import HEADS


def exported(cell: str, folder: Path) -> tuple[ir.Model, ModelSpec]:
    """Export ``family/head`` with seeded weights, and return its canonical graph and spec."""
    family, head = cell.split("/")
    HEADS[head].build(FAMILIES[family], folder)
    frontend, progress, options = PytorchFrontend(), Progress(lambda event: None), make_options()
    recognized, words = frontend.recognize(folder, folder, options, progress)
    subject = Subject(folder, recognized, words, options)
    graph = frontend.graphs(subject, progress)[""]
    return StripMetadataPass()(graph).model, recognized.spec
