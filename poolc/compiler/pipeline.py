"""The stages of a compile, in order: fetch, recognise, load, export, lower, verify, publish."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
from transformers import PreTrainedTokenizerBase

from poolc.compiler import source, tokenizer
from poolc.compiler.architecture import load_weights
from poolc.compiler.events import Progress
from poolc.compiler.export import export
from poolc.compiler.heads import PoolingModel
from poolc.compiler.passes.strip_metadata import StripMetadataPass
from poolc.compiler.recognize import Recognized, recognize
from poolc.compiler.reference import Reference
from poolc.compiler.report import tool_versions
from poolc.compiler.source import SourceModel
from poolc.compiler.targets.base import TargetCompiler
from poolc.compiler.targets.cpu import CpuCompiler
from poolc.compiler.verify import verify
from poolc.compiler.weights import save_sharing_weights
from poolc.errors import InvalidOption
from poolc.model_cache.artifact import Artifact, open_artifact
from poolc.model_cache.host import cpu_features
from poolc.model_cache.manifest import (
    RECIPE,
    SCHEMA_MAJOR,
    SCHEMA_MINOR,
    TOKENIZER_FILE,
    Manifest,
    SchemaVersion,
    Source,
    space_id,
)
from poolc.model_cache.publish import publish, seal, staging
from poolc.model_cache.requests import compile_key, recorded_options
from poolc.model_cache.store import Store
from poolc.runtime.backends.onnxruntime import import_onnxruntime
from poolc.runtime.engine import Engine
from poolc.spec import CompileOptions, Target

TARGETS: Mapping[Target, type[TargetCompiler]] = {Target.CPU: CpuCompiler}


@dataclass(frozen=True, slots=True)
class Request:
    """One compile: what, how, and where to (None: the store)."""

    model: str
    options: CompileOptions
    output: Path | None = None
    refresh: bool = False


def compile_model(request: Request, store: Store, progress: Progress) -> Artifact:
    """Run every stage and return the published artifact.

    Raises ModelError, CompileError, InputError or ArtifactError; nothing is published then.
    """
    options = request.options
    target = _target(options)
    import_onnxruntime()  # the gate needs it: say so now, not after the export
    parent = request.output.parent if request.output else store.artifacts
    with tempfile.TemporaryDirectory(prefix="poolc-") as work, staging(parent) as staged:
        with progress.stage("fetch"):
            found = source.fetch(request.model, options, store, progress)
            other = _other_tokenizer(options, store, progress)
            folder = source.materialize(found, other, options, Path(work), progress)
        with progress.stage("recognise"):
            recognized, words = recognize(folder, options, progress.warn)
        with progress.stage("load"):
            model = _load(folder, recognized, options)
        with progress.stage("export"):
            canonical = StripMetadataPass()(export(model)).model
        with progress.stage("lower"):
            lowered = target.lower(canonical, recognized.spec, staged)
            _write_tokenizer(staged, words)
            if options.keep_canonical:
                _write_canonical(staged, canonical)
        manifest = _manifest(found, recognized, options, lowered, staged)
        report: dict[str, Any] = {"tools": tool_versions(), "cpu_features": sorted(cpu_features())}
        with progress.stage("verify"):
            seal(staged, manifest, report)
            parity = verify(
                Engine(open_artifact(staged)), Reference(folder, recognized, words, options)
            )
        with progress.stage("publish"):
            report |= {
                "parity": parity.to_plain(),
                "seconds": dict(progress.seconds),
                "warnings": progress.warnings,
            }
            destination = request.output or store.artifact_path(manifest.artifact_id)
            artifact = publish(staged, manifest, report, destination)
    if request.output is None:
        _remember(request, found, other, artifact, store)
    return artifact


def _target(options: CompileOptions) -> TargetCompiler:
    if options.target not in TARGETS:
        raise InvalidOption(
            f"target is {options.target}; this poolc compiles for: {', '.join(TARGETS)}",
            param="target",
        )
    target = TARGETS[options.target]()
    target.check(options)
    return target


def _other_tokenizer(
    options: CompileOptions, store: Store, progress: Progress
) -> SourceModel | None:
    if options.tokenizer is None:
        return None
    return source.fetch(options.tokenizer, replace(options, revision=None), store, progress)


def _load(folder: Path, recognized: Recognized, options: CompileOptions) -> PoolingModel:
    backbone = load_weights(
        folder / recognized.transformer,
        recognized.arch,
        trust_remote_code=options.trust_remote_code,
        attention="sdpa",
    )
    return PoolingModel(backbone, recognized.spec, folder).eval()


def _write_tokenizer(staged: Path, words: PreTrainedTokenizerBase) -> None:
    (staged / TOKENIZER_FILE).write_text(tokenizer.tokenizer_json(words), encoding="utf-8")


def _write_canonical(staged: Path, canonical: ir.Model) -> None:
    save_sharing_weights({"canonical.onnx": canonical.clone()}, staged, "canonical.onnx.data")


def _manifest(
    found: SourceModel,
    recognized: Recognized,
    options: CompileOptions,
    lowered: Any,
    staged: Path,
) -> Manifest:
    files = sorted(path for path in staged.rglob("*") if path.is_file())
    return Manifest(
        schema=SchemaVersion(SCHEMA_MAJOR, SCHEMA_MINOR),
        recipe=RECIPE,
        source=Source(found.id, found.revision, dict(found.files)),
        spec=recognized.spec,
        target=options.target,
        precision=options.precision,
        graphs=lowered.graphs,
        space_id=space_id(recognized.spec, _space_files(found.files)),
        files={str(path.relative_to(staged)): _sha256(path) for path in files},
        requires=lowered.requires,
        tuning=lowered.tuning,
        options=recorded_options(options),
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _space_files(files: Mapping[str, str]) -> dict[str, str]:
    """Return the files that define the vectors; configuration does so through the spec."""
    kept = (".safetensors", ".bin", ".pt", ".model", ".txt")
    names = (
        "tokenizer.json",
        "vocab.json",
        "merges.txt",
        "tokenizer_config.json",
        "added_tokens.json",
    )
    return {
        name: digest
        for name, digest in files.items()
        if name.endswith(kept) or name.rpartition("/")[2] in names
    }


def _remember(
    request: Request,
    found: SourceModel,
    words: SourceModel | None,
    artifact: Artifact,
    store: Store,
) -> None:
    if found.revision is not None:
        store.record_commit(request.model, request.options.revision, found.revision)
    key = compile_key(found.identity(), request.options, words.files if words else None)
    store.remember(key, artifact.artifact_id, {"source": found.id})
