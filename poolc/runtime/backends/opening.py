"""Which backend runs an artifact, and on which devices; imports libraries when they are needed."""

from __future__ import annotations

from collections.abc import Sequence

from poolc.errors import InvalidOption
from poolc.model_cache.artifact import Artifact
from poolc.runtime.backends.base import Backend
from poolc.spec import Target


def open_backend(artifact: Artifact, device: str | None = None) -> Backend:
    """Open the backend that an artifact was lowered for, on one of its devices.

    Raises ArtifactIncompatible, MissingDependency, and InvalidOption for a device of another kind.
    """
    target = artifact.manifest.target
    if target is not Target.CPU:
        return _on_gpus(artifact, device_names(device or "cuda"))
    if device not in (None, "cpu"):
        raise InvalidOption(
            f"device is {device!r}; this artifact is for the CPU: compile the model for another "
            "target",
            param="device",
        )
    from poolc.runtime.backends.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(artifact)


def device_names(device: str) -> tuple[str, ...]:
    """Read the names of one device or several, with commas between them."""
    return tuple(name.strip() for name in device.split(","))


def _on_gpus(artifact: Artifact, devices: Sequence[str]) -> Backend:
    backends: list[Backend]
    if artifact.manifest.target is Target.CUDA:
        from poolc.runtime.backends.cuda import CudaBackend

        backends = [CudaBackend(artifact, name) for name in devices]
    else:
        from poolc.runtime.backends.tensorrt import TensorRTBackend

        backends = [TensorRTBackend(artifact, name) for name in devices]
    if len(backends) == 1:
        return backends[0]
    from poolc.runtime.backends.replicas import Replicas

    return Replicas(backends, devices)
