"""Torch -> the canonical ONNX graph: opset 23, no vendor operators, batch and sequence dynamic.

Why these exporter settings: docs/decisions/002-exporter.md.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import onnx_ir as ir
import onnxscript.optimizer
import torch

from poolc.compiler.canonical import BATCH, IR_VERSION, SEQ
from poolc.compiler.heads import PoolingModel
from poolc.errors import CompileError
from poolc.spec import ATTENTION_MASK, INPUT_IDS, POOLING_MASK

OPSET = 23


def export(model: PoolingModel) -> ir.Model:
    """Export with every output of the model's head.

    Raises CompileError where torch cannot trace the model.
    """
    dynamic = torch.export.Dim.DYNAMIC
    names = list(model.input_names)
    with torch.no_grad(), _quiet():
        try:
            program = torch.onnx.export(
                model.eval(),
                _example(names),
                dynamo=True,
                opset_version=OPSET,
                # Its rewrites of rotary embeddings fail for more than one text.
                optimize=False,
                dynamic_shapes=(
                    ({0: dynamic, 1: dynamic},) * len(names),
                ),  # *inputs is one argument
                input_names=names,
                output_names=model.output_names,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise CompileError(f"torch cannot export this model: {_root(error)}") from error
        if program is None:
            raise CompileError("torch exported nothing")
        onnxscript.optimizer.optimize(program.model)
    graph = program.model
    graph.ir_version = IR_VERSION
    return _name_dimensions(graph)


def _example(names: list[str]) -> tuple[torch.Tensor, ...]:
    # Neither size is 0 or 1, which the exporter would specialise; one row is padded, so that no
    # branch for "nothing is masked" is traced.
    shape = (3, 11)
    values = {
        INPUT_IDS: torch.arange(33).reshape(shape) % 7 + 1,
        ATTENTION_MASK: torch.ones(shape, dtype=torch.int64),
    }
    values[ATTENTION_MASK][1, 8:] = 0
    values[POOLING_MASK] = values[ATTENTION_MASK].clone()
    values[POOLING_MASK][:2, :3] = 0
    return tuple(values.get(name, torch.zeros(shape, dtype=torch.int64)) for name in names)


def _name_dimensions(model: ir.Model) -> ir.Model:
    """Call the symbolic dimensions batch and seq, on inputs and outputs alike."""
    for value in [*model.graph.inputs, *model.graph.outputs]:
        if value.shape is None:
            raise CompileError(f"the exporter gave {value.name} no shape")
        names = [BATCH, SEQ]
        value.shape = ir.Shape(
            [d if isinstance(d, int) else names[i] for i, d in enumerate(value.shape.dims)]
        )
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's notes on torchvision and its internal deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)


def _root(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
