"""An artifact's engines built again for this machine, from the ONNX in it. No PyTorch.

Everything else stays as it is: graphs, tokenizer, profiles and the reference outputs, which the new
engines are compared with when they are first loaded.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

from poolc.compiler.events import Progress
from poolc.compiler.targets.engines import (
    EngineFile,
    build_engines,
    engine_requires,
    fp8_problem,
    open_builder,
    settings_for,
)
from poolc.errors import ArtifactIncompatible
from poolc.model_cache.artifact import Artifact, open_artifact
from poolc.model_cache.manifest import GraphInfo, Manifest
from poolc.model_cache.publish import publish, staging
from poolc.model_cache.store import Store
from poolc.runtime.first_load import CANONICAL_ONLY
from poolc.spec import ENGINE_OPTIONS, ENGINE_TARGETS, CompileOptions, Precision, Target


def rebuild(path: Path, store: Store, progress: Progress, device: int = 0) -> Artifact:
    """Build the engines of an artifact for a GPU of this machine, into the store.

    Raises ArtifactIncompatible for an artifact without engines or without their ONNX,
    MissingDependency without the library or its GPU, CompileError where building fails.
    """
    artifact = open_artifact(path, check_host=False)
    manifest = artifact.manifest
    if manifest.target not in ENGINE_TARGETS:
        raise ArtifactIncompatible(f"{path} is for {manifest.target} and has no engine to rebuild")
    onnx = _onnx_files(artifact)
    with progress.stage("start"):
        timing = store.root / "timing"
        builder = open_builder(manifest.target, _options(manifest), timing, device)
    if manifest.precision is Precision.FP8:
        problem = fp8_problem(builder, _options(manifest).hardware_compatibility)
        if problem is not None:
            raise ArtifactIncompatible(f"{path} cannot be rebuilt here: {problem}")
    settings = settings_for(builder, _options(manifest), manifest.precision, manifest.profiles)
    with staging(store.artifacts) as staged:
        _copy(artifact, staged)
        with progress.stage("build"):
            engines = build_engines(builder, settings, staged, onnx)
        graphs = {name: _rebuilt(graph, engines) for name, graph in manifest.graphs.items()}
        files = {name: manifest.files[name] for name in manifest.files if (staged / name).exists()}
        files |= {engine.file: _sha256(staged / engine.file) for engine in engines.values()}
        requires = replace(manifest.requires, engine=engine_requires(builder, settings))
        made = replace(manifest, graphs=graphs, files=files, requires=requires)
        report = artifact.report()
        # What was compared was another engine: the first load compares this one.
        report["parity"] = {**report.get("parity", {}), "scope": CANONICAL_ONLY}
        report["rebuilt_from"] = artifact.artifact_id
        with progress.stage("publish"):
            return publish(staged, made, report, store.artifact_path(made.artifact_id))


def _options(manifest: Manifest) -> CompileOptions:
    """Return the options of engines that the artifact was compiled with, but for another GPU."""
    kept = {name: manifest.options[name] for name in ENGINE_OPTIONS if name in manifest.options}
    kept["compute_capability"] = None
    return replace(CompileOptions(target=Target(manifest.target)), **kept)


def _onnx_files(artifact: Artifact) -> dict[str, str]:
    """Return the ONNX file of each engine, by the first output set that runs it."""
    found: dict[str, str] = {}
    for output_set, graph in artifact.manifest.graphs.items():
        if graph.onnx is None:
            raise ArtifactIncompatible(
                f"{artifact.path} carries no ONNX of its engine {graph.file}: compile the model "
                "again"
            )
        if graph.onnx not in found.values():
            found[output_set] = graph.onnx
    return found


def _rebuilt(graph: GraphInfo, engines: dict[str, EngineFile]) -> GraphInfo:
    by_file = {engine.file: engine for engine in engines.values()}
    return replace(graph, scratch_bytes=by_file[graph.file].scratch_bytes)


def _copy(artifact: Artifact, staged: Path) -> None:
    plans = {graph.file for graph in artifact.manifest.graphs.values()}
    for name in artifact.manifest.files:
        if name not in plans:
            (staged / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(artifact.file(name), staged / name)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
