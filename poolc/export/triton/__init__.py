"""An artifact as a model repository of Triton Inference Server.

An ensemble of two models: a Python step that tokenises (``tokenizer_step.py``), and the graph on
ONNX Runtime or the engine on TensorRT. Knows nothing about running them.

Layout: https://docs.nvidia.com/deeplearning/triton-inference-server/ (model repository).
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from poolc.errors import CannotExport, InvalidOption
from poolc.export.answers import answers, check_exportable, cuts, embeds
from poolc.export.card import triton_card
from poolc.export.folder import exporting
from poolc.export.graphs import Edit, cut_vectors, in_turn, keep_outputs, write_graph
from poolc.export.triton.batching import Batching, TritonOptions, choose_batching
from poolc.export.triton.config import (
    LABELS_FILE,
    PAIR_INPUTS,
    TEXT_INPUTS,
    Names,
    Served,
    ensemble_config,
    model_config,
    tokenizer_config,
)
from poolc.export.triton.pbtxt import pbtxt
from poolc.model_cache.artifact import Artifact
from poolc.model_cache.manifest import TOKENIZER_FILE
from poolc.spec import ENGINE_TARGETS, MAIN_SET, POOLED, ModelSpec, Target

__all__ = ["HOME", "TritonOptions", "export_triton"]

HOME = "triton"
_VERSION = "1"
# Not "embedding": exported graphs have a value of that name.
_CUT_EMBEDDING = "cut_embedding"
_STEP = Path(__file__).with_name("tokenizer_step.py")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def export_triton(
    artifact: Artifact,
    output: str | Path,
    options: TritonOptions | None = None,
    *,
    force: bool = False,
) -> Names:
    """Write a model repository with three models; return what they are called.

    The ensemble takes ``text`` (or ``query`` and ``document``), strings [batch, 1], and answers
    ``embedding`` or ``scores``, float32 [batch, size]. Raises CannotExport for a model whose
    answers are not one row a text or that Triton has no backend for, InvalidOption, ArtifactExists,
    and MissingDependency without onnx.
    """
    options = options or TritonOptions()
    check_exportable(artifact, "Triton")
    _check_target(artifact)
    names = Names(_name(artifact, options.name))
    batching = choose_batching(artifact.manifest, options)
    served = _served(artifact, names, options)
    with exporting(Path(output), HOME, artifact, force=force) as folder:
        _write_tokenizer(artifact, folder, served, batching, options)
        _write_model(artifact, folder, served, batching)
        _write_config(folder / names.ensemble, ensemble_config(served, batching))
        # Object stores have no empty folders, and Triton wants one for the version.
        (folder / names.ensemble / _VERSION / ".keep").touch()
        (folder / "README.md").write_text(triton_card(artifact, served), encoding="utf-8")
    return names


def _check_target(artifact: Artifact) -> None:
    manifest, spec = artifact.manifest, artifact.manifest.spec
    if manifest.target is Target.TENSORRT_RTX:
        raise CannotExport(
            "Triton has no backend for TensorRT-RTX: compile the model with --target tensorrt"
        )
    if manifest.target in ENGINE_TARGETS and embeds(spec) and cuts(spec):
        raise CannotExport(
            f"vectors are cut to {spec.default_dimensions} numbers after the graph, and an engine "
            "cannot be changed: compile the model for the target cpu, or without dimensions"
        )


def _name(artifact: Artifact, given: str | None) -> str:
    if given is not None and not _NAME.fullmatch(given):
        raise InvalidOption(
            f"name is {given!r}; allowed: letters, digits, '.', '_' and '-', a letter or digit "
            "first",
            param="name",
        )
    last = artifact.manifest.source.id.rstrip("/").rpartition("/")[2]
    return given or re.sub(r"[^A-Za-z0-9._-]", "_", last).lstrip("._-") or "model"


def _served(artifact: Artifact, names: Names, options: TritonOptions) -> Served:
    manifest, spec = artifact.manifest, artifact.manifest.spec
    pairs = spec.pairs if options.pairs is None else options.pairs
    if pairs and embeds(spec):
        raise InvalidOption("pairs is for classifiers; this model embeds texts", param="pairs")
    found = answers(spec)
    if embeds(spec) and cuts(spec):
        found = tuple(replace(one, tensor=_CUT_EMBEDDING) for one in found)
    outputs = tuple((one.tensor, one.size) for one in found)
    graph = manifest.graphs[MAIN_SET]
    if manifest.target in ENGINE_TARGETS:  # an engine has the outputs that it has
        outputs = tuple((one.name, int(one.shape[-1])) for one in graph.outputs)
    return Served(
        names,
        manifest.target,
        graph.inputs,
        outputs,
        found,
        PAIR_INPUTS if pairs else TEXT_INPUTS,
        bool(spec.labels) and not embeds(spec),
    )


def _write_tokenizer(
    artifact: Artifact, folder: Path, served: Served, batching: Batching, options: TritonOptions
) -> None:
    spec = artifact.manifest.spec
    version = _write_config(folder / served.names.tokenizer, tokenizer_config(served, batching))
    shutil.copyfile(_STEP, version / "model.py")
    shutil.copyfile(artifact.file(spec.tokenizer), version / TOKENIZER_FILE)
    settings = {
        "texts": list(served.texts),
        "inputs": {one.name: one.dtype for one in served.inputs},
        "truncate": options.truncate,
        "pad_to_powers": batching.pad_to_powers,
        "least_tokens": batching.least_tokens,
        **_reading(spec),
    }
    content = json.dumps(settings, indent=2, ensure_ascii=False)
    (version / "settings.json").write_text(content + "\n", encoding="utf-8")


def _reading(spec: ModelSpec) -> dict[str, Any]:
    return {
        "max_length": spec.max_length,
        "truncation_side": spec.truncation_side,
        "chars_per_token": spec.chars_per_token,
        "pad_token_id": spec.pad_token_id,
        "takes_prompt": embeds(spec),
        "prompts": dict(spec.prompts),
        "default_prompt_name": spec.default_prompt_name,
        "include_prompt": spec.include_prompt,
    }


def _write_model(artifact: Artifact, folder: Path, served: Served, batching: Batching) -> None:
    config = model_config(served, batching)
    version = _write_config(folder / served.names.model, config)
    if served.has_labels:
        labels = "".join(f"{label}\n" for label in artifact.manifest.spec.labels)
        (folder / served.names.model / LABELS_FILE).write_text(labels, encoding="utf-8")
    graph = artifact.manifest.graphs[MAIN_SET]
    if artifact.manifest.target in ENGINE_TARGETS:
        shutil.copyfile(artifact.file(graph.file), version / "model.plan")
        return
    write_graph(artifact.file(graph.file), version, _edit(artifact.manifest.spec, served))


def _edit(spec: ModelSpec, served: Served) -> Edit:
    kept = keep_outputs([name for name, _ in served.outputs])
    if not (embeds(spec) and cuts(spec)):
        return kept
    size = served.answers[0].size
    return in_turn(cut_vectors(POOLED, size, normalize=spec.normalize, output=_CUT_EMBEDDING), kept)


def _write_config(folder: Path, config: Mapping[str, Any]) -> Path:
    """Write a model's configuration; return the folder of its only version."""
    version = folder / _VERSION
    version.mkdir(parents=True)
    (folder / "config.pbtxt").write_text(pbtxt(config), encoding="utf-8")
    return version
