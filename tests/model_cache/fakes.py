"""Small artifacts made by hand: real manifests over a tiny ONNX graph and a few bytes of files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from poolc.model_cache.artifact import Artifact
from poolc.model_cache.durable import write_new
from poolc.model_cache.manifest import (
    RECIPE,
    SCHEMA_MAJOR,
    SCHEMA_MINOR,
    GraphInfo,
    Manifest,
    SchemaVersion,
    Source,
    TensorInfo,
    space_id,
)
from poolc.model_cache.publish import publish, staging
from poolc.spec import Kind, ModelSpec, PoolingType, Precision, Target, Task

GRAPH = "model.onnx"
DATA = "model.onnx.data"
REPORT = {"parity": {"texts": 3, "max_error": 1e-7}}


def fake_spec(**changes: Any) -> ModelSpec:
    spec = ModelSpec(
        architecture="BertModel",
        model_type="bert",
        kind=Kind.EMBEDDING,
        tasks=(Task.EMBED,),
        hidden_size=8,
        max_length=16,
        inputs=("input_ids", "attention_mask"),
        vocab_size=30,
        pooling=(PoolingType.MEAN,),
        embedding_size=8,
        prompts={"query": "query: "},
    )
    return replace(spec, **changes)


def fake_manifest(files: Mapping[str, str], **changes: Any) -> Manifest:
    spec = fake_spec()
    weights = {"model.safetensors": "0" * 64}
    manifest = Manifest(
        schema=SchemaVersion(SCHEMA_MAJOR, SCHEMA_MINOR),
        recipe=RECIPE,
        source=Source("someone/tiny", "c0ffee", weights),
        spec=spec,
        target=Target.CPU,
        precision=Precision.FP32,
        graphs={
            "main": GraphInfo(
                GRAPH,
                (TensorInfo("input_ids", "int64", ("batch", "seq")),),
                (TensorInfo("pooled", "float32", ("batch", 8)),),
            )
        },
        space_id=space_id(spec, weights),
        files=dict(files),
    )
    return replace(manifest, **changes)


def digests(contents: Mapping[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}


def write_files(folder: Path, contents: Mapping[str, bytes]) -> None:
    for name, data in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_new(folder / name, data)


def publish_fake(contents: Mapping[str, bytes], destination: Path, **changes: Any) -> Artifact:
    """Publish ``contents`` at ``destination``; ``changes`` are fields of the manifest."""
    manifest = fake_manifest(digests(contents), **changes)
    with staging(destination.parent) as staged:
        write_files(staged, contents)
        return publish(staged, manifest, REPORT, destination)


def flip(path: Path, offset: int) -> None:
    """Flip one bit of the byte at ``offset`` in place."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 0x20]))


def next_tick(folder: Path) -> None:
    """Return once the filesystem's clock has moved on, so that the next write gets another time."""
    probe = folder / "tick"
    probe.write_bytes(b"")
    first = probe.stat().st_ctime_ns
    while probe.stat().st_ctime_ns == first:
        os.utime(probe)
    probe.unlink()
