"""What an artifact's main graph answers, by the names that other servers and libraries use.

Owns which models can leave poolc's runtime, and why the others cannot. Knows nothing about the
layout of any export.
"""

from __future__ import annotations

from dataclasses import dataclass

from poolc.errors import CannotExport
from poolc.model_cache.artifact import Artifact
from poolc.model_cache.manifest import Manifest
from poolc.spec import (
    LOGITS,
    MAIN_SET,
    POOLED,
    PROBS,
    SENTENCE_EMBEDDING,
    Kind,
    ModelSpec,
)

EMBEDDING = "embedding"
SCORES = "scores"

_EMBEDS = (Kind.EMBEDDING, Kind.HYBRID)
_WHY_NOT = {
    Kind.TOKEN_CLASSIFIER: "answers with one row a token",
    Kind.REWARD: "answers with one row a token",
    Kind.SPARSE: "answers with as many weights as a text has",
    Kind.MULTI_VECTOR: "answers with one vector a token, and tokenises queries and documents apart",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """One row a text: what it is called outside, the graph's output, and how many numbers."""

    name: str
    tensor: str
    size: int


def answers(spec: ModelSpec) -> tuple[Answer, ...]:
    """Return what a model answers, the default answer of poolc's runtime first.

    Vectors that are cut by default are made of ``pooled``; others are ``sentence_embedding``.
    """
    if spec.kind in _EMBEDS:
        size = spec.default_dimensions or spec.embedding_size or 0
        return (Answer(EMBEDDING, POOLED if cuts(spec) else SENTENCE_EMBEDDING, size),)
    labels = len(spec.labels)
    if spec.use_activation:
        return Answer(SCORES, PROBS, labels), Answer("logits", LOGITS, labels)
    return Answer(SCORES, LOGITS, labels), Answer("probabilities", PROBS, labels)


def embeds(spec: ModelSpec) -> bool:
    """Return whether a model's answer is one vector a text."""
    return spec.kind in _EMBEDS


def cuts(spec: ModelSpec) -> bool:
    """Return whether vectors are cut, and normalised again, where a request does not say."""
    return spec.default_dimensions not in (None, spec.embedding_size)


def check_exportable(artifact: Artifact, home: str) -> None:
    """Raise CannotExport, with the reason, for a model whose answers are not one row a text."""
    manifest = artifact.manifest
    why = _why_not(manifest)
    if why is not None:
        raise CannotExport(
            f"{manifest.source.id} cannot be exported to {home}: {why}; `poolc serve` serves it"
        )


def _why_not(manifest: Manifest) -> str | None:
    spec = manifest.spec
    if spec.kind in _WHY_NOT:
        return f"a model of kind {spec.kind} {_WHY_NOT[spec.kind]}"
    if spec.router is not None:
        return "its queries and documents take routes of their own"
    if spec.template is not None:
        return "its prompts are made by a template, which only poolc's runtime renders"
    if spec.chunk:
        return "it averages the windows of long texts, which only poolc's runtime does"
    further = [one.name for one in manifest.graphs[MAIN_SET].inputs if one.name not in spec.inputs]
    if further:
        return (
            f"its graph has no padding and wants {', '.join(further)}, which cannot be batched "
            "elsewhere (compile it for the target cpu or tensorrt)"
        )
    return None
