"""Families of the matrix as the pipeline hands them to targets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from poolc.api import make_options
from poolc.compiler.comparison import Reference, Subject
from poolc.compiler.events import Progress
from poolc.compiler.frontends.pytorch import PytorchFrontend
from poolc.compiler.passes.strip_metadata import StripMetadataPass
from poolc.spec import ModelSpec
from tests.matrix.families import FAMILIES
from tests.matrix.heads import HEADS


@dataclass(frozen=True, slots=True)
class Exported:
    """A canonical graph, the spec that it is of, and the library whose numbers it has."""

    graph: ir.Model
    spec: ModelSpec
    reference: Reference


def exported(cell: str, folder: Path) -> tuple[ir.Model, ModelSpec]:
    """Export ``family/head`` with seeded weights, and return its canonical graph and spec."""
    subject, graph = _exported(cell, folder)
    return graph, subject.recognized.spec


def exported_beside_reference(cell: str, folder: Path) -> Exported:
    """Export ``family/head``, with the reference that the parity gate compares it with."""
    subject, graph = _exported(cell, folder)
    return Exported(graph, subject.recognized.spec, PytorchFrontend().reference(subject))


def _exported(cell: str, folder: Path) -> tuple[Subject, ir.Model]:
    family, head = cell.split("/")
    HEADS[head].build(FAMILIES[family], folder)
    frontend, progress, options = PytorchFrontend(), Progress(lambda event: None), make_options()
    recognized, words = frontend.recognize(folder, folder, options, progress)
    subject = Subject(folder, recognized, words, options)
    graph = frontend.graphs(subject, progress)[""]
    return subject, StripMetadataPass()(graph).model
