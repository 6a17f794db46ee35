"""The README of an export: what it is made of, by what, and how it is used.

Knows nothing about how the other files are written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from poolc.export.answers import embeds
from poolc.export.folder import version
from poolc.model_cache.artifact import Artifact
from poolc.spec import ENGINE_TARGETS, Precision, Target

if TYPE_CHECKING:
    from poolc.export.triton.config import Served


_EMBED_USAGE = """
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("<this folder>", backend="onnx", model_kwargs=options)
vectors = model.encode(["A cat sits on the sill.", "Shares fell on Monday."])
"""
_SCORE_USAGE = """
from sentence_transformers import CrossEncoder

model = CrossEncoder("<this folder>", backend="onnx", model_kwargs=options)
scores = model.predict([("Where is the animal?", "A cat sits on the sill.")])
"""
_OPTIONS = """
options = {"provider": "CPUExecutionProvider"}
"""
# Fusions beyond the basic ones round before integers otherwise than poolc's runtime does.
_INT8_OPTIONS = """
import onnxruntime

session_options = onnxruntime.SessionOptions()
session_options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
options = {"provider": "CPUExecutionProvider", "session_options": session_options}
"""


def triton_card(artifact: Artifact, served: Served) -> str:
    """Return how a model repository is served and asked."""
    names = served.names
    request = {
        "inputs": [
            {
                "name": name,
                "shape": [1, 1],
                "datatype": "BYTES",
                "data": ["A cat sits on the sill."],
            }
            for name in served.texts
        ]
    }
    answered = ", ".join(f"`{one.name}` ({one.size} numbers)" for one in served.answers)
    lines = [
        f"# {artifact.manifest.source.id} for Triton Inference Server",
        "",
        *_made_of(artifact),
        "",
        "| model | what |",
        "| --- | --- |",
        f"| `{names.ensemble}` | what clients ask: {_inputs(served)} in, {answered} out |",
        f"| `{names.tokenizer}` | texts to token ids, on the Python backend |",
        f"| `{names.model}` | {_engine(artifact)} |",
        "",
        "The Python backend needs numpy and tokenizers: `pip install numpy tokenizers` in the "
        "image of Triton,",
        "or an environment named with EXECUTION_ENV_PATH.",
        *_needs(artifact),
        "",
        "```console",
        "$ tritonserver --model-repository <this folder>",
        f"$ curl -s localhost:8000/v2/models/{names.ensemble}/infer -d '{json.dumps(request)}'",
        "```",
        "",
        *_parameters(artifact),
    ]
    return "\n".join(lines) + "\n"


def sentence_transformers_card(artifact: Artifact) -> str:
    """Return the model card of a Sentence Transformers folder."""
    source, is_embedder = artifact.manifest.source, embeds(artifact.manifest.spec)
    task = "sentence-similarity" if is_embedder else "text-ranking"
    is_int8 = artifact.manifest.precision is Precision.INT8
    usage = _INT8_OPTIONS if is_int8 else _OPTIONS
    usage += _EMBED_USAGE if is_embedder else _SCORE_USAGE
    front = ["library_name: sentence-transformers", f"pipeline_tag: {task}", "tags: [onnx, poolc]"]
    if source.revision is not None:  # of a folder nobody knows where on the hub it is
        front.append(f"base_model: {json.dumps(source.id)}")
    lines = [
        *("---", *front, "---", ""),
        f"# {source.id} as ONNX",
        "",
        *_made_of(artifact),
        *_needs(artifact),
        "",
        "```python",
        usage.strip(),
        "```",
    ]
    return "\n".join(lines) + "\n"


def _made_of(artifact: Artifact) -> Iterator[str]:
    manifest = artifact.manifest
    source = manifest.source
    revision = f" at revision {source.revision}" if source.revision else ""
    yield f"Made by poolc {version()} from `{source.id}`{revision}: architecture"
    yield f"{manifest.spec.architecture}, {manifest.precision}, artifact `{artifact.artifact_id}`,"
    yield f"vector space `{artifact.space_id}`. The weights are that model's: its licence holds"
    yield "for this folder, and its model card says what it was trained for."


def _needs(artifact: Artifact) -> Iterator[str]:
    requires = artifact.manifest.requires
    if requires.onnxruntime is not None:
        yield f"The graph needs ONNX Runtime {requires.onnxruntime}."
    if requires.cpu_features:
        yield f"It was made for CPUs with {', '.join(requires.cpu_features)}."
    if requires.engine is not None:
        needs = requires.engine
        gpus = " or ".join(needs.compute_capabilities)
        later = " or later" if needs.version_compatible else ""
        yield f"The engine is code, and runs on TensorRT {needs.version}{later} and compute"
        yield f"capability {gpus} ({needs.gpu or 'built without a GPU'})."


def _engine(artifact: Artifact) -> str:
    target = artifact.manifest.target
    if target in ENGINE_TARGETS:
        return "the model, an engine of TensorRT"
    return f"the model, on ONNX Runtime ({'CPU' if target is Target.CPU else 'CUDA'})"


def _inputs(served: Served) -> str:
    return " and ".join(f"`{name}`" for name in served.texts)


def _parameters(artifact: Artifact) -> Iterator[str]:
    yield "Parameters of a request: `truncate` (true: texts that are too long are cut instead of"
    yield f"refused; the limit is {artifact.manifest.spec.max_length} tokens)."
    spec: Any = artifact.manifest.spec
    if spec.embedding_size:
        known = ", ".join(f"`{name}`" for name in spec.prompts) or "none"
        yield f"`prompt_name` chooses a prompt of the model ({known}), `prompt` gives another. They"
        yield "reach the tokenizer of an ensemble in Triton 23.10 or later."
