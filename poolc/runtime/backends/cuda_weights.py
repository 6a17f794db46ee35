"""An artifact's weights on one GPU, once, whatever number of sessions compute with them.

ONNX Runtime computes with a tensor that it is given for an initializer as it is, if it lies on the
device that wants it, and otherwise reads its own. It has to be memory that ONNX Runtime does not
own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from poolc.errors import ArtifactCorrupt, BackendError, DeviceOutOfMemory
from poolc.model_cache.artifact import Artifact
from poolc.model_cache.onnx_paths import ExternalTensor, external_initializers
from poolc.runtime.backends.cuda_device import DeviceMemory, OutOfMemoryError, call
from poolc.runtime.backends.dlpack import BITS, CUDA, borrowed
from poolc.runtime.backends.linked_cudart import LinkedCudart, linked_cudart

_ALIGNMENT = 256  # as CUDA's own allocations
_HOST_TO_DEVICE = 1  # cudaMemcpyKind
# A file, and where in it. The same numbers may have another name in another graph.
_Place = tuple[str, int, int]


class DeviceWeights:
    """The weights that an artifact's graphs have in files beside them, on one device.

    They stay there as long as this object does, which has to outlive the sessions. One thread at
    a time; nothing may be recorded meanwhile.
    """

    def __init__(
        self, ort: ModuleType, cudart: LinkedCudart, artifact: Artifact, device: int
    ) -> None:
        self._ort, self._cudart, self._artifact = ort, cudart, artifact
        self._device = device
        self._blocks: list[DeviceMemory] = []
        self._addresses: dict[_Place, int] = {}
        self._values: dict[ExternalTensor, Any] = {}

    def share(self, file: str, options: Any) -> None:
        """Have a session of the graph ``file`` with these ``options`` use the weights here.

        Raises DeviceOutOfMemory, ArtifactCorrupt and BackendError.
        """
        path = self._artifact.file(file)
        with path.open("rb") as graph:
            found = external_initializers(graph, path.stat().st_size)
            tensors = [one for one in found if one.data_type in BITS and one.length]
        self._copy({_place(one): one for one in tensors if _place(one) not in self._addresses})
        for tensor in tensors:
            if tensor not in self._values:
                address, device = self._addresses[_place(tensor)], (CUDA, self._device)
                self._values[tensor] = borrowed(
                    self._ort, address, tensor.shape, tensor.data_type, device
                )
            options.add_initializer(tensor.name, self._values[tensor])

    def __del__(self) -> None:
        if getattr(self, "_blocks", None):
            self._cudart.cudaSetDevice(self._device)  # or freeing would open another one
            self._values.clear()
            self._blocks.clear()

    def _copy(self, tensors: Mapping[_Place, ExternalTensor]) -> None:
        """Copy tensors to the device, one behind the other in one block."""
        starts, end = dict[_Place, int](), 0
        for place, tensor in tensors.items():
            starts[place] = end
            end += -(-tensor.length // _ALIGNMENT) * _ALIGNMENT
        if not end:
            return
        call(self._cudart, "cudaSetDevice", self._device)
        try:
            block = DeviceMemory(self._cudart, end)
        except OutOfMemoryError as error:
            raise DeviceOutOfMemory(
                f"the weights take {end / 1e6:,.0f} MB, and cuda:{self._device} has no room for "
                "them: stop what else uses it, or compile the model in fp16 or bf16"
            ) from error
        files = {
            location: np.memmap(self._artifact.file(location), np.uint8, "r")
            for location in {one.location for one in tensors.values()}
        }
        for place, tensor in tensors.items():
            content = files[tensor.location][tensor.offset :][: tensor.length]
            if len(content) != math.prod(tensor.shape) * BITS[tensor.data_type] // 8:
                raise ArtifactCorrupt(f"{tensor.location} does not hold what {tensor.name} needs")
            source, to = content.ctypes.data, block.address + starts[place]
            call(self._cudart, "cudaMemcpy", to, source, tensor.length, _HOST_TO_DEVICE)
        call(self._cudart, "cudaDeviceSynchronize")  # small copies return before they are done
        self._blocks.append(block)
        self._addresses |= {place: block.address + start for place, start in starts.items()}


def device_weights(ort: ModuleType, artifact: Artifact, device: int) -> DeviceWeights | None:
    """Return an artifact's weights for a device, none of which is there yet.

    None where CUDA cannot be asked for the device: a session says what is missing.
    """
    cudart = linked_cudart(ort)
    if cudart is None:
        return None
    try:
        count = int(call(cudart, "cudaGetDeviceCount"))
    except BackendError:
        return None
    return DeviceWeights(ort, cudart, artifact, device) if device < count else None


def _place(tensor: ExternalTensor) -> _Place:
    return tensor.location, tensor.offset, tensor.length
