"""``poolc inspect``: what an artifact is, and where every choice in it came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poolc.cli.compile import evidence
from poolc.cli.groups import grouped
from poolc.cli.options import AsJson, CompileArguments, Model
from poolc.spec import MAIN_SET

if TYPE_CHECKING:
    from poolc.model_cache.artifact import Artifact
    from poolc.model_cache.manifest import EngineRequires, GraphInfo, Manifest, TensorInfo
    from poolc.spec import ModelSpec


ShowTuning = Annotated[
    bool,
    typer.Option("--tuning", help="Show what was timed when it was compiled, and what was kept."),
]


@grouped
def inspect(
    model: Model,
    *,
    tuning: ShowTuning = False,
    as_json: AsJson = False,
    compiling: CompileArguments,
) -> None:
    """Show an artifact: ids, tasks, every choice with its origin, graphs, parity and sizes."""
    artifact = _find(model, compiling.given())
    if as_json:
        import json

        typer.echo(json.dumps(_plain(artifact), indent=2))
        return
    manifest = artifact.manifest
    shown = tuning_lines(manifest.tuning, artifact.report()) if tuning else _lines(artifact)
    for line in shown:
        typer.echo(line)


def _find(model: str, options: dict[str, Any]) -> Artifact:
    from poolc import api
    from poolc.errors import ArtifactNotFound
    from poolc.model_cache.artifact import is_artifact, open_artifact
    from poolc.model_cache.store import Store

    store = Store.default()
    path: Path | None = Path(model).expanduser()
    if path is None or not is_artifact(path):
        options.pop("refresh", None)
        path = api.lookup(model, api.make_options(**options), store)
    if path is None:
        raise ArtifactNotFound(
            f"{model} is no artifact, and no model that was compiled with these options: "
            f"run `poolc compile {model}`"
        )
    # To look at an artifact, this machine need not be able to run it.
    return open_artifact(path, store=store, check_host=False)


def _plain(artifact: Artifact) -> dict[str, Any]:
    from poolc.model_cache.serde import to_plain

    return {
        "path": str(artifact.path),
        "artifact_id": artifact.artifact_id,
        "space_id": artifact.space_id,
        "manifest": to_plain(artifact.manifest),
        "report": artifact.report(),
        "sizes": artifact.sizes(),
    }


def _lines(artifact: Artifact) -> Iterator[str]:
    manifest, spec = artifact.manifest, artifact.manifest.spec
    revision = f" at {manifest.source.revision}" if manifest.source.revision else ""
    yield f"artifact      {artifact.path}"
    yield f"id            {artifact.artifact_id}"
    yield f"space         {artifact.space_id}"
    yield f"source        {manifest.source.id}{revision}"
    yield f"target        {manifest.target}, {manifest.precision}"
    yield f"needs         {_requires(artifact)}"
    if manifest.packed_for is not None:
        packed = manifest.packed_for
        yield f"packed for    onnxruntime {packed.onnxruntime} on {packed.host_class}"
    yield f"architecture  {spec.architecture} ({spec.model_type})"
    yield f"tasks         {', '.join(spec.tasks)}"
    yield ""
    yield "choices"
    yield from choices_of(spec)
    yield ""
    yield "graphs"
    for name, graph in manifest.graphs.items():
        yield f"  {name:<10}  {graph.file}: {_interface(graph)}"
    if manifest.profiles:
        yield ""
        yield "profiles (texts x tokens)"
        yield from _profiles(manifest)
    yield ""
    for name, line in evidence(artifact.report()):
        yield f"{name:<12}  {line}"
    sizes = artifact.sizes()
    yield f"size          {_megabytes(sum(sizes.values()))}"
    for name, size in sorted(sizes.items(), key=lambda item: -item[1]):
        yield f"  {_megabytes(size):>10}  {name}"


def tuning_lines(tuning: Mapping[str, Any], report: Mapping[str, Any]) -> Iterator[str]:
    """Yield what was chosen, and what was tried by how much it made the graph faster."""
    rewrites = ", ".join(tuning.get("rewrites", ())) or "none"
    found = report.get("tuning", {})
    yield f"rewrites      {rewrites}"
    yield f"micro-batch   {tuning.get('budget_tokens', 'not recorded')} tokens"
    if "lone_threads" in tuning:
        yield f"lone request  up to {tuning['lone_threads']} threads"
    for output_set, layout in tuning.get("layout", {}).items():
        yield f"tokens        {output_set}: {layout}"
    for output_set, kind in tuning.get("attention_kernels", {}).items():
        yield f"attention     {output_set}: {kind}"
    seconds = f", {found['seconds']} s" if "seconds" in found else ""
    yield f"chosen        {_HOW.get(found.get('mode', ''), 'not recorded')}{seconds}"
    if "not_timed" in found:
        yield f"not timed     {found['not_timed']}"
    for name, one in found.get("rewrites", {}).items():
        kept = "kept" if one.get("kept") else "left out"
        speedup = f"{one['speedup']:.3f}x" if "speedup" in one else one["not_timed"]
        yield f"  {name:<16}  {speedup}  {kept if 'speedup' in one else ''}".rstrip()
    for tokens, cost in found.get("us_per_token", {}).items():
        yield f"  {tokens + ' tokens':<16}  {cost:.2f} us each"
    for threads, cost in found.get("lone_text_ms", {}).items():
        yield f"  {threads + ' threads':<16}  {cost:.2f} ms a short text"


_HOW = {
    "quick": "timed on the machine that compiled (quick)",
    "full": "timed on the machine that compiled (full)",
    "fixed": "the target's own, which has one way to be lowered",
    "off": "shipped for its CPU, untimed",
    "recorded": "from a tuning record",
}


def choices_of(spec: ModelSpec) -> Iterator[str]:
    """Yield a row a choice, with its value and origin; those of other routes by themselves."""
    yield from _choices(spec)
    for route, other in (spec.router.others if spec.router else {}).items():
        yield ""
        yield f"choices of route {route}"
        yield from _choices(other)


def _choices(spec: ModelSpec) -> Iterator[str]:
    rows = [(name, _value(spec, name)) for name in sorted(spec.origins)]
    name_width = max((len(name) for name, _ in rows), default=0)
    value_width = min(40, max((len(value) for _, value in rows), default=0))
    for name, value in rows:
        yield f"  {name:<{name_width}}  {value:<{value_width}}  {spec.origins[name]}"


def _value(spec: ModelSpec, name: str) -> str:
    """Show a field by its dotted name; nothing where its own fields have rows, or there is none."""
    from poolc.model_cache.serde import to_plain

    if any(other.startswith(f"{name}.") for other in spec.origins):
        return ""
    value: Any = to_plain(spec)
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return ""
        value = value[part]
    if name == "router":
        sides = ", ".join(f"{side}: {route}" for side, route in value["sides"].items())
        return sides + ("" if value["has_default"] else "; a side must be named")
    return _shown(value)


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_shown(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(_shown, value)) or "none"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return repr(value) if isinstance(value, str) and value != value.strip() else str(value)


def _requires(artifact: Artifact) -> str:
    requires = artifact.manifest.requires
    runtime = f"onnxruntime{requires.onnxruntime}" if requires.onnxruntime else ""
    needs = [runtime, *requires.cpu_features, *_engine_needs(requires.engine)]
    return ", ".join(filter(None, needs)) or "nothing special"


def _engine_needs(engine: EngineRequires | None) -> Iterator[str]:
    if engine is None:
        return
    later = " or later" if engine.version_compatible else ""
    yield f"{engine.library} {engine.version}{later}"
    if engine.hardware_compatibility == "ampere-plus":
        yield "compute capability 8.0 or later"
    else:
        yield f"compute capability {' or '.join(engine.compute_capabilities)}"
    if engine.gpu is not None and engine.hardware_compatibility == "none":
        yield engine.gpu
    if engine.driver is not None:
        yield f"a driver for CUDA {engine.driver.split('.')[0]} or later"


def _profiles(manifest: Manifest) -> Iterator[str]:
    """Yield a row a profile: its shapes, and what a run in it takes of device memory."""
    graph = manifest.graphs[MAIN_SET]
    for place, profile in enumerate(manifest.profiles):
        least, tuned, most = (
            f"{rows} x {seq}"
            for rows, seq in (profile.min_shape, profile.opt_shape, profile.max_shape)
        )
        shapes = most if least == most else f"{least} to {most}, tuned for {tuned}"
        known = place < len(graph.scratch_bytes)
        takes = f", {_megabytes(graph.scratch_bytes[place])} of scratch" if known else ""
        yield f"  {shapes}{takes}"


def _interface(graph: GraphInfo) -> str:
    return f"{_tensors(graph.inputs)} -> {_tensors(graph.outputs)}"


def _tensors(tensors: tuple[TensorInfo, ...]) -> str:
    return ", ".join(
        f"{t.name} {t.dtype} [{', '.join(str(size) for size in t.shape)}]" for t in tensors
    )


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 100_000 else f"{size_bytes / 1e3:.1f} kB"
