"""What a compile request is, as the store looks it up: identity of the source, and options.

The compiler remembers under the same key that ``poolc.api`` looks up, so both call this.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from poolc.errors import InputError
from poolc.model_cache.host import host_class
from poolc.model_cache.serde import to_plain
from poolc.model_cache.store import request_key
from poolc.model_cache.tuning import TUNE_MODES, tuning_record
from poolc.spec import ENGINE_OPTIONS, CompileOptions

Identity = Mapping[str, Any]
_UNASKED = CompileOptions()


def folder_identity(name: str, files: Mapping[str, str]) -> Identity:
    """Identify a local model by its name and the sha256 of its files."""
    return {"name": name, "files": dict(files)}


def hub_identity(hub_id: str, commit: str) -> Identity:
    """Identify a repository at a commit."""
    return {"hub": hub_id, "commit": commit}


def has_torch() -> bool:
    """Say whether PyTorch is installed, without importing it."""
    return importlib.util.find_spec("torch") is not None


def resolved(options: CompileOptions) -> CompileOptions:
    """Return the options of a compile here: without PyTorch it can only be from ONNX."""
    return options if has_torch() else replace(options, from_onnx=True)


def recorded_options(options: CompileOptions, tokenizer: str | None = None) -> dict[str, Any]:
    """Return the options that change an artifact.

    The revision is in the source's identity, and so is where another tokenizer lies: ``tokenizer``
    is its name. ``runner`` (auto and pooling are one here) and ``allow_pickle`` decide whether
    poolc compiles, not what; ``tune`` how it chooses what the
    manifest's tuning says. Of a calibration file only what it says counts. Raises InputError
    where that cannot be read.
    """
    plain: dict[str, Any] = to_plain(options)
    if options.calibrate is None:  # as in the keys of artifacts that knew no calibration
        plain.pop("calibrate")
    else:
        plain["calibrate"] = _digest(options.calibrate)
    for name in ("revision", "runner", "allow_pickle", "tune"):
        plain.pop(name)
    for name in ENGINE_OPTIONS:  # likewise: keys from before there were engines
        if getattr(options, name) == getattr(_UNASKED, name):
            plain.pop(name)
    return {**plain, "tokenizer": tokenizer}


def _digest(path: str) -> str:
    try:
        with Path(path).expanduser().open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", param="calibrate") from error


def compile_key(
    identity: Identity, options: CompileOptions, tokenizer: Identity | None = None
) -> str:
    """Return the store's key of a request; ``tokenizer`` identifies another tokenizer."""
    source = {**identity, "tokenizer": dict(tokenizer)} if tokenizer else identity
    tune: Any = options.tune if options.tune in TUNE_MODES else tuning_record(options.tune)
    return request_key(source, {**recorded_options(options), "tune": tune}, host_class())
