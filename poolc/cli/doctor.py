"""``poolc doctor``: what this machine can run, and what to install for the rest. Prints a probe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import typer

from poolc.cli.options import AsJson

if TYPE_CHECKING:
    from poolc.runtime.probe import Gpu, Machine, OnnxRuntime, Probe
    from poolc.runtime.probe_engines import Library


def doctor(as_json: AsJson = False) -> None:
    """Tell what this machine can run, and what to install for the rest."""
    from poolc.runtime.probe import probe

    found = probe()
    if as_json:
        import json

        from poolc.model_cache.serde import to_plain

        typer.echo(json.dumps(to_plain(found), indent=2))
        return
    for line in _lines(found):
        typer.echo(line)


def _lines(found: Probe) -> Iterator[str]:
    yield f"python        {found.python}"
    yield from _machine(found.machine)
    yield from _onnxruntime(found.onnxruntime)
    yield from _gpu(found.gpu)
    yield from _libraries(found.libraries)
    for extra, packages in found.packages.items():
        yield f"{extra:<13} {_packages(packages)}"
    yield ""
    if found.advice:
        yield "missing:"
        yield from (f"  {line}" for line in found.advice)
    else:
        yield "nothing is missing"


def _machine(machine: Machine) -> Iterator[str]:
    yield f"system        {machine.system}"
    yield f"processor     {machine.processor}"
    yield f"              {' '.join(machine.cpu_features) or 'features unknown'}"
    yield f"cores         {machine.allowed_cores} allowed, {machine.host_cores} there"
    yield f"memory        {_gib(machine.memory_bytes)}, {_gib(machine.available_bytes)} available"


def _onnxruntime(onnxruntime: OnnxRuntime) -> Iterator[str]:
    state = " cannot be used" if onnxruntime.version and onnxruntime.problem else ""
    yield f"onnxruntime   {onnxruntime.version or 'not installed'}{state}"
    for provider in onnxruntime.providers:
        yield f"              {provider.name}: {provider.problem or 'loads and computes'}"


def _gpu(gpu: Gpu) -> Iterator[str]:
    yield f"gpu           {'; '.join(gpu.devices) or gpu.problem or 'none'}"


def _libraries(libraries: Mapping[str, Library | None]) -> Iterator[str]:
    for name, library in libraries.items():
        yield f"{name:<13} {_library(library)}"


def _library(library: Library | None) -> str:
    if library is None:
        return "not installed"
    return f"{library.version}{' does not load' if library.problem else ''}"


def _packages(packages: Mapping[str, str | None]) -> str:
    return ", ".join(f"{name} {version or 'MISSING'}" for name, version in packages.items())


def _gib(size_bytes: int | None) -> str:
    return "unknown" if size_bytes is None else f"{size_bytes / 2**30:.1f} GiB"
