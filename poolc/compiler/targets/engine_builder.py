"""An engine out of an ONNX file, by the builder of TensorRT or of TensorRT-RTX.

The library is passed in: one function serves both, and TensorRT-RTX, which builds without a GPU,
is how it is tested. Types are those of the graph (both libraries build strongly typed networks);
nothing here chooses a precision. Knows nothing about models, artifacts or where files lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from poolc.errors import CompileError, InvalidOption, MissingDependency
from poolc.runtime.backends.tensorrt_library import messages
from poolc.spec import Profile

_HARDWARE = {
    "none": "NONE",
    "same-compute-capability": "SAME_COMPUTE_CAPABILITY",
    "ampere-plus": "AMPERE_PLUS",
}
HARDWARE_COMPATIBILITY = tuple(_HARDWARE)
OPTIMIZATION_LEVELS = range(6)


# What the builder says of attention in a type, or with heads of a size, that no kernel has.
_NO_KERNEL = "dedicated kernel"
# Of an Attention: build it from plain products where no kernel has it.
_DECOMPOSABLE = "TRT_decomposable"


@dataclass(frozen=True, slots=True)
class BuildSettings:
    """How to build. ``exact``: no rounding to tf32, and attention from plain products, since no
    fused kernel has fp32.

    ``compute_capabilities`` ("8.9") are those that TensorRT-RTX compiles for; TensorRT knows only
    the GPU that it runs on, and takes none.
    """

    profiles: tuple[Profile, ...]
    exact: bool = False
    optimization_level: int | None = None
    workspace_bytes: int | None = None
    hardware_compatibility: str = "none"
    version_compatible: bool = False
    compute_capabilities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Built:
    """An engine as bytes, and the timing cache that the next build starts from, if there is one.

    ``fused_attention``: its attention is the library's kernels; else it is plain products. None:
    the graph has no operator for attention, only products that the library may fuse or not.
    """

    plan: bytes
    timing_cache: bytes
    fused_attention: bool | None = True


def build(
    trt: ModuleType, onnx_file: Path, settings: BuildSettings, timing_cache: bytes = b""
) -> Built:
    """Parse ``onnx_file``, whose weights lie beside it, and build its engine.

    Attention is fused; where no kernel has heads of the model's size it is built from plain
    products, and the result says so. Raises CompileError with every node that the parser refuses,
    or with what the builder said, and InvalidOption for a GPU that the library does not compile
    for.
    """
    if not settings.exact:
        built, errors = _attempt(trt, onnx_file, settings, timing_cache, fused=True)
        if built is not None:
            return built
        if not any(_NO_KERNEL in error for error in errors):
            raise _failed(trt, onnx_file, errors)
    built, errors = _attempt(trt, onnx_file, settings, timing_cache, fused=False)
    if built is None:
        raise _failed(trt, onnx_file, errors)
    return built


def _attempt(
    trt: ModuleType, onnx_file: Path, settings: BuildSettings, timing_cache: bytes, *, fused: bool
) -> tuple[Built | None, Sequence[str]]:
    """Return an engine, or None and what the library said."""
    said = messages(trt)
    began = said.mark()
    builder = trt.Builder(said)
    network = builder.create_network(0)
    _parse(trt, network, onnx_file, fused=fused)
    config = builder.create_builder_config()
    _configure(trt, config, settings)
    _add_profiles(builder, network, config, settings.profiles)
    timed = not settings.compute_capabilities  # TensorRT-RTX times nothing, and warns of a cache
    cache = _timing_cache(config, timing_cache) if timed else None  # kept until it is built
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        return None, said.errors_since(began)
    has_attention = _has_attention(trt, network)
    kept = b"" if cache is None else _serialized(config.get_timing_cache())
    return Built(bytes(plan), kept, fused if has_attention else None), ()


def _timing_cache(config: Any, content: bytes) -> Any:
    """Give the builder what was timed before; nothing where it refuses that, or None at all."""
    for start in dict.fromkeys((content, b"")):
        cache = config.create_timing_cache(start)
        if cache is not None and config.set_timing_cache(cache, False):
            return cache
    return None


def _serialized(cache: Any) -> bytes:
    content = None if cache is None else cache.serialize()
    return b"" if content is None else bytes(content)


def _has_attention(trt: ModuleType, network: Any) -> bool:
    layers = (network.get_layer(index) for index in range(network.num_layers))
    return any(layer.type == trt.LayerType.ATTENTION_INPUT for layer in layers)


def compute_capability_names(trt: ModuleType) -> tuple[str, ...]:
    """Return the compute capabilities that the library compiles for elsewhere, like "8.9"."""
    members = getattr(trt, "ComputeCapability", None)
    names = getattr(members, "__members__", {})
    digits = [name.removeprefix("SM") for name in names if name.startswith("SM")]
    return tuple(f"{number[:-1]}.{number[-1]}" for number in sorted(digits, key=int))


def _parse(trt: ModuleType, network: Any, onnx_file: Path, *, fused: bool) -> None:
    said = messages(trt)
    began = said.mark()
    parser = trt.OnnxParser(network, said)
    if fused:
        done = parser.parse_from_file(str(onnx_file))
    else:  # ONNX Runtime refuses the attribute: it is not in the file
        done = parser.parse(_decomposable(onnx_file), str(onnx_file))
    if done:
        return
    refused = [_shown(parser.get_error(index)) for index in range(parser.num_errors)]
    listed = "\n".join(f"  {line}" for line in refused or said.errors_since(began))
    raise CompileError(f"{_name(trt)} cannot read {onnx_file.name}:\n{listed}")


def _decomposable(onnx_file: Path) -> bytes:
    """Return a graph, without its weights, whose attention may be taken apart."""
    try:
        import onnx
    except ImportError as error:
        raise MissingDependency(
            "an engine without fused attention is built through the package onnx: pip install onnx"
        ) from error
    model = onnx.load(str(onnx_file), load_external_data=False)
    for node in model.graph.node:
        if node.op_type == "Attention" and not node.domain:
            node.attribute.append(onnx.helper.make_attribute(_DECOMPOSABLE, 1))
    content: bytes = model.SerializeToString()
    return content


def _shown(error: Any) -> str:
    where = " ".join(filter(None, [error.node_operator(), error.node_name()]))
    return f"{where or 'the graph'}: {error.desc()}"


def _configure(trt: ModuleType, config: Any, settings: BuildSettings) -> None:
    if settings.exact:
        config.clear_flag(trt.BuilderFlag.TF32)
    if hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION"):
        # Of TensorRT-RTX: what allocates while it runs cannot be recorded.
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    if hasattr(trt.PreviewFeature, "RUNTIME_ACTIVATION_RESIZE_10_10"):
        # Without it half a micro-batch takes as much scratch memory as the profile's most.
        config.set_preview_feature(trt.PreviewFeature.RUNTIME_ACTIVATION_RESIZE_10_10, True)
    if settings.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if settings.optimization_level is not None:
        config.builder_optimization_level = settings.optimization_level
    if settings.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_bytes)
    level = _HARDWARE[settings.hardware_compatibility]
    if level != "NONE":
        config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, level)
    if settings.compute_capabilities:
        _set_compute_capabilities(trt, config, settings.compute_capabilities)


def _set_compute_capabilities(trt: ModuleType, config: Any, wanted: tuple[str, ...]) -> None:
    allowed = compute_capability_names(trt)
    unknown = [name for name in wanted if name not in allowed]
    if unknown:
        raise InvalidOption(
            f"compute_capability is {', '.join(unknown)}; {_name(trt)} compiles for: "
            f"{', '.join(allowed)}",
            param="compute_capability",
        )
    config.num_compute_capabilities = len(wanted)
    for place, name in enumerate(wanted):
        member = getattr(trt.ComputeCapability, f"SM{name.replace('.', '')}")
        config.set_compute_capability(member, place)


def _add_profiles(builder: Any, network: Any, config: Any, profiles: tuple[Profile, ...]) -> None:
    """Give every input, which are all [batch, seq], the shapes of each profile."""
    names = [network.get_input(index).name for index in range(network.num_inputs)]
    for wanted in profiles:
        profile = builder.create_optimization_profile()
        for name in names:
            profile.set_shape(name, wanted.min_shape, wanted.opt_shape, wanted.max_shape)
        if config.add_optimization_profile(profile) < 0:
            raise CompileError(f"the builder refuses the profile {wanted}; this is a bug in poolc")


def _name(trt: ModuleType) -> str:
    return f"{trt.__name__.removesuffix('_bindings')} {trt.__version__}"


def _failed(trt: ModuleType, onnx_file: Path, errors: Sequence[str]) -> CompileError:
    reason = errors[-1] if errors else "it does not say why"
    return CompileError(f"{_name(trt)} cannot build {onnx_file.name}: {reason}")
