"""The check that a compile could not make: an artifact on its own device against its reference.

An artifact that was compiled where its device is not carries token ids and reference outputs
(``parity.safetensors``) and says ``canonical-only``. The first process that loads it on a device
compares them, and what it found is remembered for that device, driver and runtime library. So it
is with engines that come from another GPU, driver or version of their library.

Format: ``ids`` [tokens] and ``starts`` [texts + 1] (int64), ``type_ids`` [tokens] where the model
has segments, and each output of the main graph (float32): [texts, size], or [tokens, size] where it
has a row a token.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from poolc.errors import ArtifactIncompatible, MissingDependency
from poolc.model_cache.host import built_on_the_same
from poolc.model_cache.manifest import PARITY_FILE
from poolc.model_cache.stamps import Record
from poolc.model_cache.store import Store
from poolc.runtime.bounds import BOUNDS, Cosines
from poolc.runtime.engine import Engine
from poolc.runtime.heads import expand
from poolc.runtime.probe import probe_gpu
from poolc.runtime.request import Row, TokenSequence
from poolc.spec import ENGINE_TARGETS, MAIN_SET, SPARSE_VALUES, TOKEN_OUTPUTS

CANONICAL_ONLY = "canonical-only"
_IDS, _STARTS, _TYPES = "ids", "starts", "type_ids"
_KIND = "parity"

Arrays = Mapping[str, npt.NDArray[Any]]


def complete(engine: Engine, store: Store) -> None:
    """Check an artifact on the device that it was loaded on, unless that was done.

    Raises ArtifactIncompatible where it does not reproduce its reference there.
    """
    artifact = engine.artifact
    if PARITY_FILE not in artifact.manifest.files:
        return
    compared = artifact.report().get("parity", {}).get("scope") != CANONICAL_ONLY
    if compared and _compared_here(engine):
        return
    real, device = os.path.realpath(artifact.path), device_name(engine)
    kept = store.stamps.load(_KIND, real, artifact.artifact_id)
    if device in kept.host.split("\n"):
        return
    compare(engine, _read(artifact.file(PARITY_FILE)), device)
    hosts = "\n".join([*filter(None, kept.host.split("\n")), device])
    store.stamps.save(_KIND, real, Record(artifact.artifact_id, {}, hosts))


def _compared_here(engine: Engine) -> bool:
    """Say whether an artifact that was compared on its device was on such a one as this."""
    target = engine.artifact.manifest.target
    if target not in ENGINE_TARGETS:
        return True
    from poolc.runtime.backends.tensorrt import engine_host, engine_requires

    first = None if engine.device is None else engine.device.split(",")[0].strip()
    return built_on_the_same(engine_requires(engine.artifact), engine_host(target, first))


def device_name(engine: Engine) -> str:
    """Name the device, driver and runtime whose kernels decide the numbers."""
    devices = " ".join(probe_gpu().devices)
    asked = engine.device or "default"
    told = hashlib.sha256(devices.encode()).hexdigest()[:16]
    return f"{engine.backend_name} {_library_version(engine)} {asked} {told}"


def _library_version(engine: Engine) -> str:
    target = engine.artifact.manifest.target
    if target in ENGINE_TARGETS:
        from poolc.runtime.backends.tensorrt_library import import_tensorrt

        return str(import_tensorrt(target).__version__)
    from poolc.runtime.backends.onnxruntime import runtime_version

    return runtime_version()


def reference_arrays(sequences: Sequence[TokenSequence], rows: Sequence[Row]) -> dict[str, Any]:
    """Return what ``compare`` compares with: sequences, and what the library makes of each."""
    lengths = [len(sequence) for sequence in sequences]
    found: dict[str, Any] = {
        _IDS: np.concatenate([sequence.ids for sequence in sequences]),
        _STARTS: np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
    }
    if any(sequence.type_ids is not None for sequence in sequences):
        found[_TYPES] = np.concatenate(
            [
                np.zeros(len(sequence), np.int64)
                if sequence.type_ids is None
                else sequence.type_ids
                for sequence in sequences
            ]
        )
    for name in rows[0]:
        join = np.concatenate if name in TOKEN_OUTPUTS else np.stack
        found[name] = np.ascontiguousarray(join([row[name] for row in rows]), np.float32)
    return found


def compare(engine: Engine, arrays: Arrays, device: str) -> None:
    """Run every sequence and compare its outputs. Raises ArtifactIncompatible."""
    starts = arrays[_STARTS].tolist()
    pieces = [slice(a, b) for a, b in pairwise(starts)]
    types = arrays.get(_TYPES)
    sequences = [
        TokenSequence(arrays[_IDS][piece], None if types is None else types[piece])
        for piece in pieces
    ]
    precision = engine.artifact.manifest.precision
    bounds, cosines = BOUNDS[precision], Cosines()
    size = engine.spec.vocab_size
    for place, (sequence, piece) in enumerate(zip(sequences, pieces, strict=True)):
        (row,) = engine.execute([sequence], MAIN_SET)
        row = expand(row, size) if SPARSE_VALUES in row else row
        for name, values in row.items():
            wanted = arrays[name][piece] if name in TOKEN_OUTPUTS else arrays[name][place]
            what = f"{name} of text {place}"
            largest = float(np.abs(wanted).max(initial=0.0))
            error = float(np.abs(values - wanted).max(initial=0.0)) / max(1.0, largest)
            bounded = bounds.limits_error(values.shape[-1])
            if not np.isfinite(error) or (bounded and error > bounds.error):
                raise _refused(device, f"{what} differs by {error:.3g}", f"{bounds.error:g}")
            cosines.add(values, wanted, what)
    if bounds.worst_cosine is not None and (cosines.worst or 1.0) < bounds.worst_cosine:
        said = f"the cosine of {cosines.culprit} is {cosines.worst:.5f}"
        raise _refused(device, said, f"{bounds.worst_cosine:g}")


def _read(path: os.PathLike[str]) -> Arrays:
    try:
        from safetensors.numpy import load_file
    except ImportError as error:
        raise MissingDependency(
            "the artifact has to be checked on this device before it serves, and safetensors is "
            'not installed: pip install "poolc[gpu]"'
        ) from error
    found: Arrays = load_file(path)
    return found


def _refused(device: str, said: str, bound: str) -> ArtifactIncompatible:
    return ArtifactIncompatible(
        f"on this device ({device}) {said}, beyond the bound of {bound}: the artifact was not "
        "compared on such a device and does not reproduce its reference here; compile the model on "
        "this machine"
    )
