"""The check that a compile could not make: an artifact on its own device against its reference.

An artifact that was compiled where its device is not carries token ids and reference outputs
(``parity_file.py``) and says ``canonical-only``. The first process that loads it on a device
compares them, and what it found is remembered for that device, driver and runtime library. So it
is with engines that come from another GPU, driver or version of their library.

Kernels differ by shape: every graph is compared with each text alone, and with as many together as
each of its profiles takes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from poolc.errors import ArtifactIncompatible
from poolc.model_cache.host import EngineHost, built_on_the_same
from poolc.model_cache.manifest import PARITY_FILE
from poolc.model_cache.stamps import Record
from poolc.model_cache.store import Store
from poolc.runtime.bounds import BOUNDS, Bounds, Cosines
from poolc.runtime.engine import Engine
from poolc.runtime.heads import expand
from poolc.runtime.parity_file import Arrays, References, read, unpacked
from poolc.runtime.probe import probe_gpu
from poolc.runtime.profiles import place as place_of
from poolc.spec import ENGINE_TARGETS, SPARSE_VALUES

CANONICAL_ONLY = "canonical-only"
_KIND = "parity"
_DRIVER = Path("/proc/driver/nvidia/version")
_UNKNOWN = "unknown"  # where nothing tells of devices: compared at every load


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
    known = list(filter(None, kept.host.split("\n")))
    if device in known:
        return
    arrays = read(artifact.file(PARITY_FILE))
    for one in engine.by_device():
        compare(one, arrays, device)
    if _UNKNOWN not in device:
        hosts = "\n".join([*known, device])
        store.stamps.save(_KIND, real, Record(artifact.artifact_id, {}, hosts))


def _compared_here(engine: Engine) -> bool:
    """Say whether an artifact that was compared on its device was on such ones as these."""
    if engine.artifact.manifest.target not in ENGINE_TARGETS:
        return True
    from poolc.runtime.backends.tensorrt import engine_requires

    requires = engine_requires(engine.artifact)
    return all(built_on_the_same(requires, host) for host in _engine_hosts(engine))


def _engine_hosts(engine: Engine) -> list[EngineHost]:
    from poolc.runtime.backends.tensorrt import engine_host

    return [engine_host(engine.artifact.manifest.target, name) for name in engine.devices]


def device_name(engine: Engine) -> str:
    """Name the devices, driver and runtime whose kernels decide the numbers."""
    told = list(probe_gpu().devices)
    with suppress(OSError):
        told.append(_DRIVER.read_text())
    if engine.artifact.manifest.target in ENGINE_TARGETS:
        told += map(str, _engine_hosts(engine))
    digest = hashlib.sha256("\n".join(told).encode()).hexdigest()[:16] if told else _UNKNOWN
    # The number of a device counts those that are visible.
    asked = f"{engine.device or 'default'} of {os.environ.get('CUDA_VISIBLE_DEVICES', 'all')}"
    return f"{engine.backend_name} {_library_version(engine)} {asked} {digest}"


def _library_version(engine: Engine) -> str:
    target = engine.artifact.manifest.target
    if target in ENGINE_TARGETS:
        from poolc.runtime.backends.tensorrt_library import import_tensorrt

        return str(import_tensorrt(target).__version__)
    from poolc.runtime.backends.onnxruntime import runtime_version

    return runtime_version()


def compare(engine: Engine, arrays: Arrays, device: str) -> None:
    """Run every graph and compare its outputs. Raises ArtifactIncompatible."""
    for output_set in engine.artifact.manifest.graphs:
        references = unpacked(arrays, output_set)
        if references is not None:
            _compare_set(engine, references, device)


def _compare_set(engine: Engine, references: References, device: str) -> None:
    bounds, cosines = BOUNDS[engine.artifact.manifest.precision], Cosines()
    for places in _batches(engine, [len(sequence) for sequence in references.sequences]):
        chosen = [references.sequences[place] for place in places]
        found = engine.execute(chosen, references.output_set)
        for place, row in zip(places, found, strict=True):
            row = expand(row, engine.spec.vocab_size) if SPARSE_VALUES in row else row
            for name, wanted in references.rows[place].items():
                what = f"{name} of text {place} in a batch of {len(places)}"
                _check(row[name], wanted, what, bounds, device)
                cosines.add(row[name], wanted, what)
    if cosines.worst is None or bounds.worst_cosine is None or bounds.mean_cosine is None:
        return
    if cosines.worst < bounds.worst_cosine:
        said = f"the cosine of {cosines.culprit} is {cosines.worst:.5f}"
        raise _refused(device, said, f"{bounds.worst_cosine:g}")
    if cosines.mean is not None and cosines.mean < bounds.mean_cosine:
        said = f"the mean cosine is {cosines.mean:.5f}"
        raise _refused(device, said, f"{bounds.mean_cosine:g}")


def _batches(engine: Engine, lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield texts to run together: each alone, then what fills micro-batches or profiles."""
    yield from ([place] for place in range(len(lengths)))
    profiles = engine.artifact.manifest.profiles
    if not profiles:
        yield from ([int(place) for place in batch.indices] for batch in engine.plan(lengths))
    for index, profile in enumerate(profiles):
        rows, seq = profile.max_shape
        fitting = [place for place in range(len(lengths)) if lengths[place] <= seq]
        # Longest first, and the same ones again: as full as the profile may be.
        fitting.sort(key=lambda place: -lengths[place])
        together = list(islice(cycle(fitting), rows))
        if together and place_of(profiles, rows, lengths[together[0]]).profile == index:
            yield together


def _check(
    values: npt.NDArray[Any], wanted: npt.NDArray[Any], what: str, bounds: Bounds, device: str
) -> None:
    largest = float(np.abs(wanted).max(initial=0.0))
    error = float(np.abs(values - wanted).max(initial=0.0)) / max(1.0, largest)
    bounded = bounds.limits_error(values.shape[-1])
    if not np.isfinite(error) or (bounded and error > bounds.error):
        raise _refused(device, f"{what} differs by {error:.3g}", f"{bounds.error:g}")


def _refused(device: str, said: str, bound: str) -> ArtifactIncompatible:
    return ArtifactIncompatible(
        f"on this device ({device}) {said}, beyond the bound of {bound}: the artifact was not "
        "compared on such a device and does not reproduce its reference here; compile the model on "
        "this machine"
    )
