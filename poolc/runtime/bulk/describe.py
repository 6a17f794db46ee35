"""What an output says of itself, what a ledger says of its job, and whether rows may be appended.

Knows models as data; writes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from poolc.errors import InputError
from poolc.model_cache.artifact import Artifact
from poolc.model_cache.host import host_class, runtimes_on_path
from poolc.model_cache.serde import to_plain
from poolc.runtime.bulk.answers import class_values
from poolc.runtime.bulk.formats import TABLES
from poolc.runtime.bulk.inputs import Source
from poolc.runtime.bulk.job import BulkJob
from poolc.runtime.bulk.ledger import BASE, HOST, INPUTS
from poolc.runtime.bulk.parts import Cut
from poolc.runtime.bulk.subject import Subject
from poolc.runtime.engine import Engine
from poolc.runtime.prompts import resolve_prompt
from poolc.runtime.request import Params
from poolc.spec import Precision, Task

_RAGGED_TASKS = (Task.EMBED, Task.EMBED_SPARSE, Task.EMBED_TOKENS)
# Vectors of one class differ by rounding (docs/parity.md), those of two by quantisation.
_QUANTISED = (Precision.INT8.value, Precision.FP8.value)
_FIXED = ("task", "dtype", "row_shape", "labels", "values")


def subject_of(engine: Engine, job: BulkJob) -> Subject:
    """Return what the bookkeeping of a job knows of the model, and of the host that runs it."""
    host = {
        "class": host_class(),
        "backend": engine.backend_name,
        "runtime": runtimes_on_path(),
    }
    if job.format in TABLES:
        import pyarrow

        host["pyarrow"] = pyarrow.__version__
    return Subject(engine.artifact, engine.spec, engine.budget_tokens, host)


def describe(
    subject: Subject, job: BulkJob, shape: Sequence[int | None], dtype: str
) -> dict[str, Any]:
    """Return what a reader of the rows must know: their space, and how they were made."""
    manifest = subject.artifact.manifest
    usual = to_plain(Params())
    asked = {name: v for name, v in to_plain(job.params).items() if v != usual[name]}
    meta: dict[str, Any] = {
        "task": job.task.value,
        "model": {"id": manifest.source.id, "revision": manifest.source.revision},
        "artifact_id": subject.artifact.artifact_id,
        "space_id": subject.artifact.space_id,
        "target": manifest.target.value,
        "precision": manifest.precision.value,
        "row_shape": list(shape),
        "dtype": dtype,
        "params": asked,
        "inputs": [str(path) for path in job.inputs],
    }
    if job.task in _RAGGED_TASKS:
        meta["prompt"] = resolve_prompt(subject.spec, job.params)
    if job.task is Task.EMBED:
        meta["dimensions"] = job.params.dimensions or subject.spec.default_dimensions
        meta["dimensions"] = meta["dimensions"] or subject.spec.embedding_size
    if job.task in (Task.CLASSIFY, Task.CLASSIFY_TOKENS):
        values = class_values(subject.spec, job.params)
        meta |= {"labels": list(subject.spec.labels), "values": values}
    return meta


def header(subject: Subject, job: BulkJob, sources: Sequence[Source], where: Cut) -> dict[str, Any]:
    """Return everything that the output is a function of, as JSON holds it."""
    told = {
        "task": job.task.value,
        "artifact_id": subject.artifact.artifact_id,
        "space_id": subject.artifact.space_id,
        "budget_tokens": subject.budget_tokens,
        "params": to_plain(job.params),
        "columns": to_plain(job.columns),
        "output_format": job.format.value,
        "part_rows": where.rows,
        "part_chars": where.chars,
        "dedupe": job.settings.dedupe,
        "append": job.settings.append,
        INPUTS: [source.identity() for source in sources],
        HOST: dict(subject.host),
        BASE: None,
    }
    plain: dict[str, Any] = orjson.loads(orjson.dumps(told))
    return plain


def job_key(told: Mapping[str, Any]) -> str:
    """Return a name of a job that another run of the same command has too, on any host.

    It holds names and sizes of files: what is in them is told by ``rows_digest``.
    """
    same = {name: value for name, value in told.items() if name not in (HOST, BASE, INPUTS)}
    same[INPUTS] = [entry[:2] for entry in told[INPUTS]]
    plain = orjson.dumps(same, option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(plain, digest_size=16).hexdigest()


def rows_digest(digests: Iterable[str]) -> str:
    """Return one digest of the rows of all parts."""
    return hashlib.blake2b("".join(digests).encode(), digest_size=16).hexdigest()


def check_append(
    old: Mapping[str, Any] | None, artifact: Artifact, job: BulkJob, output: str
) -> Mapping[str, Any]:
    """Check that rows of this model may stand beside those of an output that says ``old``.

    Returns ``old``. Raises InputError for another space, another class of precision (unless that
    is allowed), another task or prompt-independent shape of rows.
    """
    if old is None:
        raise InputError(
            f"{output} does not say which artifact made it: only what poolc wrote is appended to",
            param="output",
        )
    if old.get("space_id") != artifact.space_id:
        raise InputError(
            f"{output} holds vectors of the space {_short(old.get('space_id'))}, this model makes "
            f"those of {_short(artifact.space_id)}: they cannot be compared; write another file",
            param="output",
        )
    if old.get("task") != job.task.value:
        raise InputError(
            f"{output} holds rows of {old.get('task')}, not of {job.task}: write another file",
            param="output",
        )
    before, now = str(old.get("precision")), artifact.manifest.precision.value
    mixes = (before in _QUANTISED) != (now in _QUANTISED)
    if mixes and not job.settings.allow_precision_mix:
        raise InputError(
            f"{output} holds rows computed in {before}, this artifact computes in {now}: compile "
            f"the model for {before}, or allow both (--allow-precision-mix)",
            param="output",
        )
    return old


def check_same_rows(old: Mapping[str, Any], new: Mapping[str, Any], output: str) -> None:
    """Raise InputError where rows have another shape, type or labels than those before."""
    for name in _FIXED:
        if old.get(name) != new.get(name):
            raise InputError(
                f"{output} has rows whose {name} is {old.get(name)!r}, the new ones have "
                f"{new.get(name)!r}: ask for the same, or write another file",
                param="output",
            )


def appended(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an output says after rows that say ``new`` were added to it."""
    joined = dict(new)
    for name in ("rows", "rows_failed", "rows_truncated"):
        if name in old or name in new:
            joined[name] = old.get(name, 0) + new.get(name, 0)
    joined["jobs"] = [*old.get("jobs", []), *new.get("jobs", [])]
    joined["inputs"] = [*old.get("inputs", []), *new["inputs"]]
    earlier = [*old.get("earlier_artifacts", []), old.get("artifact_id")]
    others = [one for one in dict.fromkeys(earlier) if one != new["artifact_id"]]
    if others:
        joined["earlier_artifacts"] = others
    return joined


def _short(identity: Any) -> str:
    return str(identity)[:12]
