"""Engines for a machine: what its options mean there, building them, and what they then require.

Used by the targets, and by ``rebuild.py`` for an artifact that was built elsewhere. Knows nothing
about how graphs are lowered.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from poolc.compiler.targets.engine_builder import (
    HARDWARE_COMPATIBILITY,
    OPTIMIZATION_LEVELS,
    BuildSettings,
    build,
    compute_capability_names,
)
from poolc.errors import InvalidOption, MissingDependency, meant
from poolc.model_cache.durable import replace_file
from poolc.model_cache.manifest import EngineRequires
from poolc.runtime.backends.cuda_device import (
    Device,
    device_problem,
    find_device,
    select_device,
)
from poolc.runtime.backends.tensorrt_library import import_tensorrt, library_name, load_engine
from poolc.runtime.memory import parse_bytes
from poolc.runtime.profiles import AUTO, parse_profiles, read_profiles
from poolc.spec import MAIN_SET, CompileOptions, Precision, Profile, Target

# The first tensor cores that multiply E4M3 are Ada's: NVIDIA's support matrix of TensorRT.
_FP8_FROM = (8, 9)


@dataclass(frozen=True, slots=True)
class EngineBuilder:
    """A library, the GPU of this machine (None: none), the compute capabilities to compile for,
    and the folder of timing caches (None: nothing is kept).
    """

    target: Target
    trt: ModuleType
    device: Device | None
    compute_capabilities: tuple[str, ...]
    timing: Path | None = None

    @property
    def version(self) -> str:
        """The library's version."""
        return str(self.trt.__version__)


@dataclass(frozen=True, slots=True)
class EngineFile:
    """A plan in the artifact, and the device memory that a run takes by profile, where known."""

    file: str
    scratch_bytes: tuple[int, ...] = ()
    fused_attention: bool | None = True


def check_engine_options(target: Target, options: CompileOptions) -> None:
    """Raise InvalidOption for what is wrong with the options alone, before anything is fetched."""
    if options.profiles != AUTO:
        parse_profiles(options.profiles)
    level = options.optimization_level
    if level is not None and level not in OPTIMIZATION_LEVELS:
        raise InvalidOption(
            f"optimization_level is {level}; allowed: {OPTIMIZATION_LEVELS.start} to "
            f"{OPTIMIZATION_LEVELS.stop - 1}",
            param="optimization_level",
        )
    parse_bytes(options.workspace, "workspace")
    hardware = options.hardware_compatibility
    if hardware not in HARDWARE_COMPATIBILITY:
        raise InvalidOption(
            f"hardware_compatibility is {hardware!r}; allowed: "
            f"{', '.join(HARDWARE_COMPATIBILITY)}{meant(hardware, HARDWARE_COMPATIBILITY)}",
            param="hardware_compatibility",
        )
    if target is Target.TENSORRT and options.compute_capability is not None:
        raise InvalidOption(
            "compute_capability is for target tensorrt-rtx; TensorRT builds for the GPU that it "
            "runs on, and others like it with --hardware-compatibility",
            param="compute_capability",
        )
    if target is Target.TENSORRT_RTX and (hardware != "none" or options.version_compatible):
        raise InvalidOption(
            "hardware_compatibility and version_compatible are for target tensorrt; tensorrt-rtx "
            "has --compute-capability",
            param="hardware_compatibility",
        )


def open_builder(
    target: Target, options: CompileOptions, timing: Path | None, index: int = 0
) -> EngineBuilder:
    """Find what the target is built with here, on the GPU with that number.

    Raises MissingDependency without the library or, for tensorrt, without a GPU, and InvalidOption
    for GPUs that TensorRT-RTX does not compile for, or for none at all.
    """
    trt = import_tensorrt(target)
    if target is Target.TENSORRT:
        own = _device_for_tensorrt(index)
        return EngineBuilder(target, trt, own, (own.compute_capability,), timing)
    device = None if device_problem() else find_device(index)
    allowed = compute_capability_names(trt)
    wanted = _capabilities(options.compute_capability, device, allowed)
    return EngineBuilder(target, trt, device, wanted, timing)


def fp8_problem(builder: EngineBuilder, hardware_compatibility: str = "none") -> str | None:
    """Say why a GPU that is built for cannot multiply in fp8; None where all can."""
    older = [one for one in builder.compute_capabilities if _numbers(one) < _FP8_FROM]
    if hardware_compatibility == "ampere-plus":
        older.append("8.0 (hardware_compatibility is ampere-plus)")
    if not older:
        return None
    wanted = ".".join(map(str, _FP8_FROM))
    return (
        f"precision fp8 needs GPUs of compute capability {wanted} or later (Ada, Hopper, "
        f"Blackwell), and the engine is for {', '.join(older)}: compile in fp16"
    )


def read_settings(
    builder: EngineBuilder, options: CompileOptions, precision: Precision, max_length: int
) -> BuildSettings:
    """Return how to build for texts of up to ``max_length`` tokens. Raises InvalidOption."""
    profiles = read_profiles(options.profiles, max_length)
    return settings_for(builder, options, precision, profiles)


def settings_for(
    builder: EngineBuilder,
    options: CompileOptions,
    precision: Precision,
    profiles: tuple[Profile, ...],
) -> BuildSettings:
    """Return how to build these profiles here."""
    rtx = builder.target is Target.TENSORRT_RTX
    return BuildSettings(
        profiles,
        exact=precision is Precision.FP32,
        optimization_level=options.optimization_level,
        workspace_bytes=parse_bytes(options.workspace, "workspace"),
        hardware_compatibility=options.hardware_compatibility,
        version_compatible=options.version_compatible,
        compute_capabilities=builder.compute_capabilities if rtx else (),
    )


def build_engines(
    builder: EngineBuilder, settings: BuildSettings, folder: Path, onnx: Mapping[str, str]
) -> dict[str, EngineFile]:
    """Build an engine beside each ONNX file of ``folder``, by output set.

    Raises CompileError with what the library said.
    """
    if builder.device is not None:
        select_device(builder.device)  # the library builds on the thread's current one
    cache_file = _timing_file(builder)
    cache = cache_file.read_bytes() if cache_file is not None and cache_file.exists() else b""
    made = {}
    for output_set, file in onnx.items():
        built = build(builder.trt, folder / file, settings, cache)
        plan = "engine.plan" if output_set == MAIN_SET else f"engine.{output_set}.plan"
        (folder / plan).write_bytes(built.plan)
        scratch_bytes = _scratch_bytes(builder, built.plan, settings.version_compatible)
        made[output_set] = EngineFile(plan, scratch_bytes, built.fused_attention)
        cache = built.timing_cache or cache
    if cache_file is not None and cache:
        replace_file(cache_file, cache, cache_file.parent.parent / "tmp")
    return made


def engine_requires(builder: EngineBuilder, settings: BuildSettings) -> EngineRequires:
    """Return what the engines need of a machine: see ``host.engine_problem``."""
    is_rtx = builder.target is Target.TENSORRT_RTX
    device = None if is_rtx else builder.device
    return EngineRequires(
        library_name(builder.target),
        builder.version,
        builder.compute_capabilities,
        gpu=device.name if device else None,
        driver=device.driver if device else None,
        hardware_compatibility=settings.hardware_compatibility,
        version_compatible=settings.version_compatible,
    )


def _numbers(compute_capability: str) -> tuple[int, ...]:
    return tuple(int(part) for part in compute_capability.split("."))


def _device_for_tensorrt(index: int) -> Device:
    try:
        return find_device(index)
    except MissingDependency as error:
        raise MissingDependency(
            f"target tensorrt is compiled on the GPU that is to run it: {error}; without one, "
            "compile for target cuda or tensorrt-rtx"
        ) from error


def _capabilities(
    asked: str | None, device: Device | None, allowed: tuple[str, ...]
) -> tuple[str, ...]:
    if asked is None and device is None:
        raise InvalidOption(
            "compute_capability is needed where no GPU is: the ones that the engine is to run on, "
            f"like 8.9,12.0; TensorRT-RTX compiles for: {', '.join(allowed)}",
            param="compute_capability",
        )
    given = asked if asked is not None else str(device and device.compute_capability)
    found = tuple(dict.fromkeys(part.strip() for part in given.split(",")))
    unknown = [name for name in found if name not in allowed]
    if unknown:
        whose = "compute_capability is" if asked is not None else "the compute capability here is"
        raise InvalidOption(
            f"{whose} {', '.join(map(repr, unknown))}; TensorRT-RTX compiles for: "
            f"{', '.join(allowed)}",
            param="compute_capability",
        )
    return found


def _timing_file(builder: EngineBuilder) -> Path | None:
    """Return the file of what was timed by this library, on this GPU, under this driver.

    None where nothing is timed: TensorRT-RTX compiles for GPUs that may not be here.
    """
    device = builder.device
    if builder.timing is None or device is None or builder.target is Target.TENSORRT_RTX:
        return None
    key = f"{library_name(builder.target)}-{builder.version}-{device.name}-{device.driver}"
    return builder.timing / f"{re.sub(r'[^A-Za-z0-9.]+', '-', key).lower()}.cache"


def _scratch_bytes(
    builder: EngineBuilder, plan: bytes, version_compatible: bool
) -> tuple[int, ...]:
    """Ask an engine what its profiles take; only the device that runs it tells."""
    if builder.device is None:
        return ()
    _runtime, engine = load_engine(builder.trt, plan, version_compatible=version_compatible)
    if engine is None:
        return ()
    sizes = tuple(
        int(engine.get_device_memory_size_for_profile_v2(index))
        for index in range(engine.num_optimization_profiles)
    )
    del engine  # before the runtime
    return sizes
