"""The manifest: what an artifact is. Schema and the two ids; nothing about where files lie.

``manifest.json`` is canonical JSON (sorted keys, no spaces), so its sha256 is the artifact's id:
the same inputs, options, recipe and tuning record give the same bytes. Times, machine facts and
measurements live in ``report.json``, outside the identity.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from poolc.errors import ArtifactCorrupt, ArtifactIncompatible
from poolc.model_cache.serde import canonical_json, from_plain, to_plain
from poolc.spec import ModelSpec, Precision, Profile, Target

SCHEMA_MAJOR = 1
SCHEMA_MINOR = 0

# Raised whenever recognition or a graph pass changes numbers: artifacts of an older recipe are
# then not looked up.
RECIPE = 5

MANIFEST_FILE = "manifest.json"
REPORT_FILE = "report.json"
TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
SCORE_TEMPLATE_FILE = "score_template.jinja"
PARITY_FILE = "parity.safetensors"

# Fields a writer may mark ``critical``: a reader that does not know one must not guess.
KNOWN_CRITICAL: frozenset[str] = frozenset()


# Fields of a spec that hold where a request does not say.
_REQUEST_DEFAULTS = (
    *("use_activation", "default_dimensions", "matryoshka", "default_prompt_name"),
    *("reward_activation", "chunk", "max_embed_length", "instruction"),
)


@dataclass(frozen=True, slots=True)
class SchemaVersion:
    major: int
    minor: int


@dataclass(frozen=True, slots=True)
class Source:
    """Where the weights came from: hub id or folder name, commit, sha256 of every input file."""

    id: str
    revision: str | None
    files: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A graph input or output; a str in ``shape`` is a symbolic dimension."""

    name: str
    dtype: str
    shape: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class GraphInfo:
    """One executable graph: its file and its interface.

    ``packed``: the same graph with weights packed for what ``Manifest.packed_for`` says. Of an
    engine, ``onnx`` is what it was built from, and ``scratch_bytes`` the device memory that a run
    takes by profile; empty where no device was there to tell.
    """

    file: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    packed: str | None = None
    onnx: str | None = None
    scratch_bytes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class PackedFor:
    """Whose kernels packed the weights: a version of ONNX Runtime, and ``host.host_class()``."""

    onnxruntime: str
    host_class: str


@dataclass(frozen=True, slots=True)
class EngineRequires:
    """What engines were built by and for; None where no device was there to tell.

    ``library`` is the module (tensorrt, tensorrt_rtx), ``compute_capabilities`` are like "8.9",
    ``driver`` is the CUDA version that the driver had, like "13.0".
    """

    library: str
    version: str
    compute_capabilities: tuple[str, ...]
    gpu: str | None = None
    driver: str | None = None
    hardware_compatibility: str = "none"
    version_compatible: bool = False


@dataclass(frozen=True, slots=True)
class Requires:
    """What a machine needs to run this artifact; ``onnxruntime`` is a PEP 440 specifier."""

    onnxruntime: str | None = None
    cpu_features: tuple[str, ...] = ()
    engine: EngineRequires | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything that identifies an artifact. ``files`` maps relative path to sha256 hex."""

    schema: SchemaVersion
    recipe: int
    source: Source
    spec: ModelSpec
    target: Target
    precision: Precision
    graphs: Mapping[str, GraphInfo]  # by output set; "main" is always there
    space_id: str
    files: Mapping[str, str]
    requires: Requires = field(default_factory=Requires)
    packed_for: PackedFor | None = None
    profiles: tuple[Profile, ...] = ()
    tuning: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    critical: tuple[str, ...] = ()

    def to_bytes(self) -> bytes:
        """Return the canonical bytes that are written and hashed."""
        return canonical_json(to_plain(self))

    @property
    def artifact_id(self) -> str:
        """The sha256 of the canonical manifest, in hex."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def parse_manifest(data: bytes) -> Manifest:
    """Read manifest bytes.

    Raises ArtifactIncompatible for a newer major schema or an unknown critical field, and
    ArtifactCorrupt, naming the field, for anything malformed.
    """
    try:
        plain = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ArtifactCorrupt(f"{MANIFEST_FILE} is not JSON: {error}") from error
    if not isinstance(plain, dict):
        raise ArtifactCorrupt(f"{MANIFEST_FILE} must hold an object")
    _check_schema(plain)
    try:
        return from_plain(Manifest, plain, "manifest")
    except ValueError as error:
        raise ArtifactCorrupt(f"{MANIFEST_FILE}: {error}") from error


def _check_schema(plain: dict[str, Any]) -> None:
    schema = plain.get("schema")
    major = schema.get("major") if isinstance(schema, dict) else None
    if not isinstance(major, int):
        raise ArtifactCorrupt(f"{MANIFEST_FILE}: schema.major is missing")
    if major > SCHEMA_MAJOR:
        raise ArtifactIncompatible(
            f"the artifact has schema {major}; this poolc reads up to {SCHEMA_MAJOR}: upgrade poolc"
        )
    critical = plain.get("critical", [])
    names = [str(name) for name in critical] if isinstance(critical, list) else [str(critical)]
    unknown = sorted(set(names) - KNOWN_CRITICAL)
    if unknown:
        raise ArtifactIncompatible(
            f"the artifact needs {', '.join(unknown)}, which this poolc does not know: "
            "upgrade poolc"
        )


def space_id(spec: ModelSpec, weights: Mapping[str, str]) -> str:
    """Hash what defines a vector space: weights, tokenizer, heads, prompts and maximum length.

    ``weights`` maps the source's weight and tokenizer files to their sha256. Target, tuning,
    precision and tool versions stay out: a CPU artifact can answer over a GPU job's vectors.
    """
    heads = to_plain(replace(spec, origins={}, tasks=()))
    for other in (heads["router"] or {}).get("others", {}).values():
        for name in ("origins", "tasks"):
            other.pop(name)
    # Request-time defaults choose among vectors of one space; they do not make another.
    for name in _REQUEST_DEFAULTS:
        heads.pop(name)
    return hashlib.sha256(canonical_json({"spec": heads, "files": dict(weights)})).hexdigest()
