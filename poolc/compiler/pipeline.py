"""The stages of a compile: fetch, recognise, the graph's own, tune, lower, verify, publish.

The graph comes from weights (load, export) or from the ONNX that a model ships (attach):
``routes/``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
from safetensors.numpy import save

from poolc.compiler import peak_memory, source, tokenizer
from poolc.compiler.carried_references import carried_references
from poolc.compiler.comparison import Reference, Subject
from poolc.compiler.events import Progress
from poolc.compiler.frontends import open_frontend
from poolc.compiler.json_files import read_json
from poolc.compiler.passes.strip_metadata import StripMetadataPass
from poolc.compiler.provenance import source_record, space_id
from poolc.compiler.quantize.calibration import read_texts
from poolc.compiler.quantize.formats import format_of
from poolc.compiler.quantize.quantize import QUANTIZED, Texts, quantize
from poolc.compiler.recognize import Recognized, Route
from poolc.compiler.report import tool_versions
from poolc.compiler.source import SourceModel
from poolc.compiler.targets.base import Lowerable, Lowered, TargetCompiler
from poolc.compiler.targets.cpu import CpuCompiler
from poolc.compiler.targets.cuda import CudaCompiler
from poolc.compiler.targets.tensorrt import TensorRTCompiler, TensorRTRtxCompiler, on_cpu
from poolc.compiler.tuning.choose import Tuned
from poolc.compiler.tuning.record import Tuning
from poolc.compiler.tuning.stage import recorded, tune
from poolc.compiler.verify import verify
from poolc.compiler.weights import save_sharing_weights
from poolc.errors import ArtifactError, ArtifactExists, InvalidOption
from poolc.model_cache.artifact import Artifact, is_artifact, open_artifact
from poolc.model_cache.host import cpu_features
from poolc.model_cache.manifest import (
    PARITY_FILE,
    RECIPE,
    SCHEMA_MAJOR,
    SCHEMA_MINOR,
    SCORE_TEMPLATE_FILE,
    TOKENIZER_CONFIG_FILE,
    Manifest,
    SchemaVersion,
)
from poolc.model_cache.publish import publish, seal, staging
from poolc.model_cache.requests import compile_key, recorded_options, resolved
from poolc.model_cache.serde import canonical_json
from poolc.model_cache.store import Store
from poolc.runtime.backends.onnxruntime import import_onnxruntime
from poolc.runtime.engine import Engine
from poolc.runtime.first_load import CANONICAL_ONLY
from poolc.runtime.profiles import read_profiles
from poolc.runtime.quality import Labelled, measure, read_labelled
from poolc.spec import ENGINE_TARGETS, CompileOptions, Precision, Target, route_set

TARGETS: Mapping[Target, type[TargetCompiler]] = {
    Target.CPU: CpuCompiler,
    Target.CUDA: CudaCompiler,
    Target.TENSORRT: TensorRTCompiler,
    Target.TENSORRT_RTX: TensorRTRtxCompiler,
}


@dataclass(frozen=True, slots=True)
class Request:
    """One compile: what, how, and where to (None: the store).

    ``quality`` is a file of labelled texts that the artifact's task metric is measured on.
    """

    model: str
    options: CompileOptions
    output: Path | None = None
    refresh: bool = False
    quality: Path | None = None


@dataclass(frozen=True, slots=True)
class _Inputs:
    """What an artifact is made of: the model, another tokenizer, and the folder that joins them."""

    found: SourceModel
    other: SourceModel | None
    folder: Path
    recognized: Recognized
    routes: Mapping[str, Route]


def compile_model(request: Request, store: Store, progress: Progress) -> Artifact:
    """Run every stage and return the published artifact.

    Raises ModelError, CompileError, InputError or ArtifactError; nothing is published then.
    """
    options = resolved(request.options)
    target = _target(options)
    import_onnxruntime()  # the gate needs it: say so now, not after the export
    parent = request.output.parent if request.output else store.artifacts
    _check_output(request)
    labelled = None if request.quality is None else read_labelled(request.quality)
    frontend = open_frontend(options)
    if options != request.options:
        progress.warn("PyTorch is not installed: compiling the ONNX graph that the model ships")
        request = replace(request, options=options)
    # Both are removed by the next compile where this one is killed.
    with staging(parent) as work, staging(parent) as staged:
        with progress.stage("fetch"):
            found = source.fetch(request.model, options, store, progress, refresh=request.refresh)
            other = _other_tokenizer(request, store, progress)
            folder = source.materialize(found, other, options, work, progress)
        with progress.stage("recognise"):
            recognized, words = frontend.recognize(folder, work, options, progress)
        subject = Subject(folder, recognized, words, options)
        routes = {"": Route(recognized, words), **recognized.routes}
        longest = max(route.recognized.spec.max_length for route in routes.values())
        read_profiles(options.profiles, longest)  # or say now that they do not fit the model
        canonical = {
            name: StripMetadataPass()(graph).model
            for name, graph in frontend.graphs(subject, progress).items()
        }
        inputs = _Inputs(found, other, folder, recognized, routes)
        report: dict[str, Any] = {"tools": tool_versions(), "cpu_features": sorted(cpu_features())}
        reference, quantized = frontend.reference(subject), None
        quality: dict[str, float] = {}
        if options.precision in QUANTIZED:
            with staging(parent) as exact, progress.stage("quantise"):
                engine = _canonical_engine(canonical, inputs, options, exact)
                items = read_texts(Path(options.calibrate)) if options.calibrate else None
                texts, form = Texts(reference.cases(), items), format_of(options.precision)
                quantized = quantize(canonical, engine, texts, form, progress)
                report[options.precision.value] = quantized.report
                _measure(engine, labelled, Precision.FP32, quality)
        timing = store.root / "timing"
        graphs = Lowerable(canonical, quantized, options.precision, options, timing)
        absent = target.absent(options)
        record = recorded(options, _earlier(request, inputs, store))
        if record is None:
            spec, mode = recognized.spec, options.tune
            tuned = tune(target, graphs, spec, mode, parent, progress)
        else:
            tuned = Tuned(record, {"mode": "recorded"})
        report["tuning"] = tuned.report
        with progress.stage("lower"):
            manifest = _lower(target, graphs, inputs, options, staged, tuned.tuning)
        with progress.stage("verify"):
            if absent is None:
                seal(staged, manifest, report)
                engine = Engine(open_artifact(staged))
                parity = verify(engine, reference)
                manifest = _rebuildable(manifest, engine, reference, staged)
                _measure(engine, labelled, options.precision, quality)
            else:
                with staging(parent) as exact:
                    twin = _engine_on_cpu(staged, manifest)
                    engine = twin or _canonical_engine(canonical, inputs, options, exact)
                    parity = replace(verify(engine, reference), scope=CANONICAL_ONLY)
                    manifest = _with_reference(manifest, engine, reference, staged)
                    _measure(twin, labelled, options.precision, quality)
                _warn_of_absence(absent, labelled, quality, progress)
        if labelled is not None and quality:
            report["quality"] = {"file": labelled.file, labelled.metric: quality}
        measured = peak_memory.measure(staged, manifest, progress)
        if measured is not None:
            report["memory"] = measured
        with progress.stage("publish"):
            report |= {
                "parity": parity.to_plain(),
                "seconds": dict(progress.seconds),
                "warnings": progress.warnings,
            }
            destination = request.output or store.artifact_path(manifest.artifact_id)
            artifact = publish(staged, manifest, report, destination)
    try:
        _remember(request, found, other, artifact, store)
    except ArtifactError as error:  # the artifact is there; only finding it again takes longer
        progress.warn(str(error))
    return artifact


def _measure(
    engine: Engine | None, data: Labelled | None, precision: Precision, found: dict[str, float]
) -> None:
    """Add the task metric of an engine to those found, where there are both."""
    if engine is not None and data is not None:
        found[precision.value] = measure(engine, data)


def _warn_of_absence(
    absent: str, labelled: Labelled | None, quality: Mapping[str, float], progress: Progress
) -> None:
    progress.warn(
        f"only the graph that it is made from was compared, on the CPU ({absent}): the artifact is "
        "checked where it is first loaded on its device"
    )
    if labelled is not None:
        progress.warn(
            "quality was measured on the graph that the engine is built from, on the CPU"
            if quality
            else "quality is measured only where the target's device is"
        )


def _engine_on_cpu(staged: Path, manifest: Manifest) -> Engine | None:
    """Return the graphs that engines are built from as an engine on the CPU; None of others."""
    twin = on_cpu(manifest)
    return None if twin is None else Engine(Artifact(staged, twin, twin.artifact_id))


def _rebuildable(
    manifest: Manifest, engine: Engine, reference: Reference, staged: Path
) -> Manifest:
    """Give artifacts of engines what they are compared with when another machine rebuilds them."""
    if manifest.target not in ENGINE_TARGETS:
        return manifest
    return _with_reference(manifest, engine, reference, staged)


def _canonical_engine(
    canonical: Mapping[str, ir.Model], inputs: _Inputs, options: CompileOptions, folder: Path
) -> Engine:
    """Return what a target is lowered from as an engine on the CPU, in ``folder``."""
    cpu = CpuCompiler()
    options = replace(options, target=Target.CPU, keep_canonical=False)
    manifest = _lower(cpu, Lowerable(canonical), inputs, options, folder, cpu.untimed())
    seal(folder, manifest, {})
    return Engine(open_artifact(folder))


def _with_reference(
    manifest: Manifest, engine: Engine, reference: Reference, staged: Path
) -> Manifest:
    """Add to an artifact what the check on its device compares with; return its manifest."""
    arrays = carried_references(manifest, engine, reference)
    (staged / PARITY_FILE).write_bytes(save(arrays))
    digest = _sha256(staged / PARITY_FILE)
    return replace(manifest, files={**manifest.files, PARITY_FILE: digest})


def _target(options: CompileOptions) -> TargetCompiler:
    if options.target not in TARGETS:
        raise InvalidOption(
            f"target is {options.target}; this poolc compiles for: {', '.join(TARGETS)}",
            param="target",
        )
    target = TARGETS[options.target]()
    target.check(options)
    return target


def _other_tokenizer(request: Request, store: Store, progress: Progress) -> SourceModel | None:
    name = request.options.tokenizer
    if name is None:
        return None
    return source.fetch_tokenizer(name, store, progress, refresh=request.refresh)


def _check_output(request: Request) -> None:
    """Refuse an output that cannot become the artifact, before minutes of work."""
    output = request.output
    if output is None or is_artifact(output):  # the same artifact is fine: publishing compares
        return
    if output.is_dir() and not any(output.iterdir()):
        return
    if output.exists() or output.is_symlink():
        raise ArtifactExists(
            f"{output} is there already and is not an artifact: remove it, or give another --output"
        )


def _write_tokenizers(staged: Path, routes: Mapping[str, Route], folder: Path) -> None:
    for route in routes.values():
        path = staged / route.recognized.spec.tokenizer
        path.write_text(tokenizer.tokenizer_json(route.tokenizer), encoding="utf-8")
    main = routes[""]
    settings = read_json(folder / main.recognized.transformer / TOKENIZER_CONFIG_FILE)
    # Old folders name their special tokens elsewhere, and templates may use them.
    settings = {**main.tokenizer.special_tokens_map, **settings}
    template = main.tokenizer.chat_template  # from a file of its own in newer folders
    if isinstance(template, dict):  # several, by name
        template = template.get("default")
    settings.pop("chat_template", None)
    if template is not None:
        settings["chat_template"] = template
    settings.pop("name_or_path", None)  # where it lay on the machine that trained it
    (staged / TOKENIZER_CONFIG_FILE).write_bytes(canonical_json(settings))


def _write_canonical(staged: Path, canonical: Mapping[str, ir.Model]) -> None:
    models = {
        f"{route_set('canonical', name)}.onnx": model.clone() for name, model in canonical.items()
    }
    save_sharing_weights(models, staged, "canonical.onnx.data")


def _earlier(request: Request, inputs: _Inputs, store: Store) -> Path | None:
    """Return an artifact of the same request, whose tuning holds; None where it is not to."""
    if request.refresh:
        return None
    other = inputs.other.identity() if inputs.other else None
    return store.lookup(compile_key(inputs.found.identity(), request.options, other))


def _lower(
    target: TargetCompiler,
    graphs: Lowerable,
    inputs: _Inputs,
    options: CompileOptions,
    staged: Path,
    tuning: Tuning,
) -> Manifest:
    """Write everything but the manifest into ``staged``, and return that."""
    lowered = target.lower(graphs, inputs.recognized.spec, staged, tuning)
    options = replace(options, precision=graphs.precision)
    _write_tokenizers(staged, inputs.routes, inputs.folder)
    if inputs.recognized.template is not None:
        path = staged / SCORE_TEMPLATE_FILE
        path.write_text(inputs.recognized.template, encoding="utf-8", newline="")
    if options.keep_canonical:
        _write_canonical(staged, graphs.canonical)
    return _manifest(inputs, options, lowered, staged)


def _manifest(inputs: _Inputs, options: CompileOptions, lowered: Lowered, staged: Path) -> Manifest:
    recognized, other = inputs.recognized, inputs.other
    origin = source_record(inputs.found, other, recognized.transformer)
    return Manifest(
        schema=SchemaVersion(SCHEMA_MAJOR, SCHEMA_MINOR),
        recipe=RECIPE,
        source=origin,
        spec=recognized.spec,
        target=options.target,
        precision=options.precision,
        graphs=lowered.graphs,
        space_id=space_id(inputs.folder, recognized, origin.files),
        files=_digests(staged),
        requires=lowered.requires,
        packed_for=lowered.packed_for,
        profiles=lowered.profiles,
        tuning=lowered.tuning,
        options=recorded_options(options, other.id if other else None),
    )


def _digests(staged: Path) -> dict[str, str]:
    files = sorted(path for path in staged.rglob("*") if path.is_file())
    return {path.relative_to(staged).as_posix(): _sha256(path) for path in files}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remember(
    request: Request,
    found: SourceModel,
    words: SourceModel | None,
    artifact: Artifact,
    store: Store,
) -> None:
    if found.revision is not None:
        store.record_commit(request.model, request.options.revision, found.revision)
    if words is not None and words.revision is not None:
        store.record_commit(words.id, None, words.revision)
    if request.output is not None:  # not in the store: nothing to look up
        return
    key = compile_key(found.identity(), request.options, words.identity() if words else None)
    store.remember(key, artifact.artifact_id, {"source": found.id})
