"""Several graphs, one weights file: ONNX external data, written once and mapped by every graph.

The bytes depend on the tensors alone, so that a recompile writes the same file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import onnx_ir as ir

# Page-aligned, so that ONNX Runtime can map a tensor instead of copying it.
_ALIGNMENT = 4096
# Smaller constants stay in the graph: shape inference needs some of them there.
_MIN_EXTERNAL_BYTES = 1024


def save_sharing_weights(models: Mapping[str, ir.Model], folder: Path, data_file: str) -> None:
    """Save ``models`` (by file name) into ``folder`` with their large tensors in ``data_file``.

    The models are changed: their large initializers now refer to the file. Those that refer to a
    file of ``folder`` already stay as they are.
    """
    places: dict[str, int] = {}
    with (folder / data_file).open("wb") as data:
        for model in models.values():
            for value in model.graph.initializers.values():
                tensor = value.const_value
                if tensor is None or tensor.nbytes < _MIN_EXTERNAL_BYTES:
                    continue
                if isinstance(tensor, ir.ExternalTensor) and Path(tensor.base_dir) == folder:
                    continue
                content = tensor.tobytes()
                digest = hashlib.sha256(content).hexdigest()
                if digest not in places:
                    data.write(b"\0" * (-data.tell() % _ALIGNMENT))
                    places[digest] = data.tell()
                    data.write(content)
                value.const_value = ir.ExternalTensor(
                    data_file,
                    places[digest],
                    len(content),
                    tensor.dtype,
                    name=str(value.name),
                    shape=tensor.shape,
                    base_dir=folder,
                )
    for file, model in models.items():
        ir.save(model, folder / file)
