"""What this machine is: CPU features, the installed ONNX Runtime, and whether an artifact fits.

Imports no runtime: versions come from package metadata. Knows nothing about files of an artifact.
"""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from functools import cache

from poolc.errors import ArtifactCorrupt, ArtifactIncompatible, MissingDependency
from poolc.model_cache.manifest import EngineRequires, Requires

RUNTIMES = ("onnxruntime", "onnxruntime-gpu")

# The features that decide which kernels run, hence which numbers and speeds a tuned artifact saw.
_CLASS_FEATURES = (
    "avx2",
    "fma",
    "avx512f",
    "avx512bw",
    "avx512_vnni",
    "avx512_bf16",
    "avx_vnni",
    "amx_int8",
    "amx_bf16",
    "neon",
    "asimddp",
    "asimdhp",
    "i8mm",
    "bf16",
    "sve",
)
# The kernel's, or Apple's, name -> ours, where they differ; ours are Linux' names and "neon".
_ALIASES = {
    "asimd": "neon",
    "advsimd": "neon",
    "feat_dotprod": "asimddp",
    "feat_fp16": "asimdhp",
    "feat_i8mm": "i8mm",
    "feat_bf16": "bf16",
    "avx1.0": "avx",
    "avx512vnni": "avx512_vnni",
    "avx512bf16": "avx512_bf16",
}


@cache
def cpu_features() -> frozenset[str]:
    """Return the instruction sets of this CPU by Linux' names (``avx2``, ``avx512_vnni``,
    ``asimddp``; ``neon`` for ``asimd``); empty where the system does not tell."""
    if sys.platform == "linux":
        raw = _linux_features()
    elif sys.platform == "darwin":
        raw = _macos_features()
    else:
        raw = set()
    lower = {name.lower() for name in raw}
    return frozenset(lower | {_ALIASES[name] for name in lower if name in _ALIASES})


def host_class() -> str:
    """Return a short stable name of what tuning depends on: architecture and CPU features."""
    machine = platform.machine().lower()
    machine = {"amd64": "x86_64", "aarch64": "arm64"}.get(machine, machine)
    present = cpu_features()
    return "+".join([machine, *(name for name in _CLASS_FEATURES if name in present)])


def check_host(requires: Requires, vouched: str = "") -> str:
    """Check that this machine can run an artifact, and return a name of what was found.

    ``vouched`` is what an earlier successful check of the same requirements returned: while it
    still names what is installed, the slow readers of package metadata (70 ms) are not imported.
    Raises ArtifactIncompatible with the reason, or MissingDependency without any ONNX Runtime.
    """
    missing = sorted(set(requires.cpu_features) - cpu_features())
    if missing:
        raise ArtifactIncompatible(
            f"the artifact was compiled for CPUs with {', '.join(missing)}, which this one lacks: "
            "compile the model on this machine, or for a lower CPU baseline"
        )
    if requires.onnxruntime is None:
        return ""
    found = runtimes_on_path()
    if not found or found != vouched:
        _check_runtime(requires.onnxruntime)
    return found


@dataclass(frozen=True, slots=True)
class EngineHost:
    """What would run an engine here; ``compute_capability`` and ``driver`` as in the manifest."""

    version: str
    compute_capability: str
    gpu: str
    driver: str


def engine_problem(requires: EngineRequires, here: EngineHost) -> str | None:
    """Say why engines that were built elsewhere do not run here; None where they do.

    TensorRT itself refuses another version of it or compute capability, and warns of errors on
    another model of GPU (its developer guide, "Compatibility Checks"). It does not look at the
    driver; a driver for an earlier major version of CUDA does not load the kernels
    (github.com/NVIDIA/TensorRT/issues/3911), and within one CUDA promises that every driver does.
    """
    name = requires.library
    if not _version_fits(requires, here.version):
        return f"it was built by {name} {requires.version}, and {here.version} is installed"
    if not _gpu_fits(requires, here.compute_capability):
        wanted = " or ".join(requires.compute_capabilities)
        return (
            f"it was built for compute capability {wanted}, and this GPU ({here.gpu}) has "
            f"{here.compute_capability}"
        )
    if requires.gpu not in (None, here.gpu) and requires.hardware_compatibility == "none":
        return f"it was built for {requires.gpu}, and this GPU is {here.gpu}"
    if requires.driver is not None and _numbers(here.driver)[0] < _numbers(requires.driver)[0]:
        return (
            f"it was built under a driver for CUDA {requires.driver}, and this one is for "
            f"{here.driver}: install a newer driver"
        )
    return None


def built_on_the_same(requires: EngineRequires, here: EngineHost) -> bool:
    """Say whether engines come from this GPU, library and driver: what was compared holds here."""
    built = (requires.version, requires.gpu, requires.driver)
    return built == (here.version, here.gpu, here.driver)


def _version_fits(requires: EngineRequires, here: str) -> bool:
    if not requires.version_compatible:
        return here == requires.version
    built, found = (_numbers(version)[:2] for version in (requires.version, here))
    return built[0] == found[0] and found >= built


def _gpu_fits(requires: EngineRequires, here: str) -> bool:
    if requires.hardware_compatibility == "ampere-plus":
        return _numbers(here) >= (8, 0)
    return here in requires.compute_capabilities


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _check_runtime(wanted: str) -> None:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        specifier = SpecifierSet(wanted)
    except InvalidSpecifier as error:
        raise ArtifactCorrupt(
            f"manifest.requires.onnxruntime is {wanted!r}: not a range"
        ) from error
    versions = _installed_versions()
    if not versions:
        raise MissingDependency(
            f"the artifact runs on onnxruntime{wanted}, which is not installed: "
            'pip install "poolc[cpu]" or "poolc[gpu]"'
        )
    if not any(specifier.contains(version, prereleases=True) for version in versions.values()):
        present = " and ".join(f"{name} {version}" for name, version in versions.items())
        raise ArtifactIncompatible(
            f"the artifact needs onnxruntime{wanted} and {present} is installed: install a version "
            "in that range, or compile the model again here"
        )


def _installed_versions() -> dict[str, str]:
    from importlib import metadata

    versions = {}
    for name in RUNTIMES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def runtimes_on_path() -> str:
    """Name the metadata folders of ONNX Runtime on ``sys.path``, which carry its version.

    Empty where it was installed in a way that leaves none.
    """
    found: list[str] = []
    for entry in sys.path:
        try:
            names = os.listdir(entry or ".")
        except OSError:
            continue
        found += sorted(n for n in names if n.startswith("onnxruntime") and n.endswith("-info"))
    return " ".join(found)


def _linux_features() -> set[str]:
    try:
        # Only the first processor's lines: the whole file takes long on machines with many cores.
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                key, _, value = line.partition(":")
                if key.strip() in ("flags", "Features"):
                    return set(value.split())
    except OSError:
        pass
    return set()


def _macos_features() -> set[str]:
    import subprocess  # only here: it costs a cold start 5 ms

    command = ["/usr/sbin/sysctl", "hw.optional", "machdep.cpu"]
    try:
        # A key that this kind of Mac lacks gives a non-zero exit beside the rest of the output.
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return set()
    return parse_sysctl(done.stdout)


def parse_sysctl(output: str) -> set[str]:
    """Read ``name: 1`` flags (the last part of the name) and ``machdep.cpu.*features`` lists."""
    features: set[str] = set()
    for line in output.splitlines():
        key, _, value = line.partition(":")
        if key.startswith("hw.optional.") and value.strip() == "1":
            features.add(key.rpartition(".")[2])
        elif key.startswith("machdep.cpu.") and key.endswith("features"):
            features |= set(value.split())
    return features
