"""Which engine a machine may run: whether it is trusted, and building it again where it is not.

An engine of TensorRT is code. What this machine's store holds was compiled here; anything else is
loaded on request only, or built again from the ONNX beside it, which is no code.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from poolc import compiler_process
from poolc.errors import ArtifactError
from poolc.model_cache.artifact import Artifact, open_artifact
from poolc.model_cache.host import engine_problem
from poolc.model_cache.serde import to_plain
from poolc.model_cache.store import Store, request_key
from poolc.spec import CompileOptions


@dataclass(frozen=True, slots=True)
class Wish:
    """What whoever loads an engine asked for: the device, and leave to run or to rebuild it."""

    device: str | None = None
    trust_plan: bool = False
    rebuild: bool = False


def runnable(
    artifact: Artifact, store: Store, wish: Wish, on_event: Callable[[dict[str, Any]], None]
) -> Artifact:
    """Return the artifact to load: itself, or what was built from it for this machine.

    Raises ArtifactError for an engine from outside the store that is neither trusted nor to be
    rebuilt, MissingDependency without what building needs, and CompileError where it fails. An
    engine of another machine that is not to be rebuilt is refused by who runs it.
    """
    in_store = store.expected_id(os.path.realpath(artifact.path)) is not None
    trusted = wish.trust_plan or in_store
    if not wish.rebuild:
        if not trusted:
            raise ArtifactError(
                f"{artifact.path} holds an engine, which is code, and is not from this machine's "
                "store: load it with --trust-plan (trust_plan=True) if you trust where it came "
                "from, or with --rebuild (rebuild=True), which builds it here from the ONNX in it"
            )
        return artifact
    from poolc.runtime.backends.cuda import device_id
    from poolc.runtime.backends.opening import device_names
    from poolc.runtime.backends.tensorrt import engine_host, engine_requires

    first = device_names(wish.device or "cuda")[0]
    host = engine_host(artifact.manifest.target, first)
    if trusted and engine_problem(engine_requires(artifact), host) is None:
        return artifact
    # What was rebuilt runs under later drivers of the same major version of CUDA too.
    kind = replace(host, driver=host.driver.split(".")[0])
    key = request_key({"rebuilt": artifact.artifact_id}, to_plain(kind), "")
    found = store.lookup(key)
    if found is None:
        job = compiler_process.Job(
            os.path.realpath(artifact.path),
            *(CompileOptions(), store.root),
            rebuild=True,
            device=device_id(first),
        )
        found = compiler_process.run(job, on_event).path
        built = open_artifact(found, store=store)
        store.remember(key, built.artifact_id, {"rebuilt from": artifact.artifact_id})
        return built
    return open_artifact(found, store=store)
