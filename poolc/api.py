"""``compile`` and ``load``: the two public functions, and how a name becomes an artifact.

A model is compiled in a process of its own (``python -m poolc.compiler``); nothing here or above
imports torch.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from poolc import compiler_process
from poolc.engines import Wish, runnable
from poolc.errors import (
    ArtifactCorrupt,
    ArtifactIncompatible,
    InvalidOption,
    ModelNotFound,
    meant,
    nearest,
)
from poolc.model_cache.artifact import Artifact, is_artifact, open_artifact
from poolc.model_cache.manifest import PARITY_FILE
from poolc.model_cache.requests import (
    Identity,
    compile_key,
    folder_identity,
    hub_identity,
    resolved,
)
from poolc.model_cache.score_templates import is_name, template_text
from poolc.model_cache.serde import from_plain
from poolc.model_cache.source_files import local_folder
from poolc.model_cache.store import Store
from poolc.model_cache.tuning import TUNE_MODES, tuning_record
from poolc.runtime.engine import Engine
from poolc.runtime.matryoshka import KEYS as MATRYOSHKA_KEYS
from poolc.runtime.matryoshka import parse_matryoshka
from poolc.runtime.memory import parse_bytes
from poolc.spec import ENGINE_TARGETS, LIBRARY_DEFAULT, CompileOptions, MatryoshkaSpec

OnEvent = Callable[[dict[str, Any]], None]
# Options of ``load`` that compile nothing.
LOADING = ("memory_limit", "device", "trust_plan", "rebuild")
RUNNERS = ("auto", "pooling", "generate")
_COMMIT = re.compile(r"^[0-9a-f]{40}$")


@dataclass(frozen=True, slots=True)
class CompileResult:
    """A compiled artifact. ``reused``: it was in the store already; ``seconds`` are by stage."""

    path: Path
    artifact_id: str
    space_id: str
    report: Mapping[str, Any]
    reused: bool = False
    seconds: Mapping[str, float] = field(default_factory=dict)


def compile(
    model: str | Path,
    *,
    output: str | Path | None = None,
    refresh: bool = False,
    quality: str | Path | None = None,
    on_event: OnEvent | None = None,
    **options: Any,
) -> CompileResult:
    """Compile a model folder or hub id into an artifact, in the store or as the folder ``output``.

    ``options`` are the fields of ``CompileOptions``. An artifact of the same request is reused from
    the store unless ``refresh``, which also asks the hub for a newer commit. ``on_event`` receives
    stages with times, warnings and downloads, as dicts; without it, warnings go to ``warnings``.
    ``quality`` names a file of labelled texts (JSON lines: two texts and a score, or a text and a
    label) on which the artifact is measured, before and after a change of precision; the result is
    in the report, and such an artifact is always compiled anew.

    Raises ModelError, CompileError (ParityError beyond a bound), InvalidOption, ArtifactExists
    where ``output`` holds something else, MissingDependency without the compile extra.
    """
    chosen = make_options(**options)
    store = Store.default()
    job = compiler_process.Job(
        str(model),
        chosen,
        store.root,
        None if output is None else Path(output),
        refresh,
        None if quality is None else Path(quality),
    )
    with _naming_template(options):
        artifact, done = _artifact(job, store, on_event or warn)
    seconds = done.seconds if done is not None else {}
    return CompileResult(
        artifact.path,
        artifact.artifact_id,
        artifact.space_id,
        artifact.report(),
        reused=done is None,
        seconds=seconds,
    )


def load(
    model: str | Path,
    *,
    refresh: bool = False,
    memory_limit: int | str | None = None,
    device: str | None = None,
    trust_plan: bool = False,
    rebuild: bool = False,
    on_event: OnEvent | None = None,
    **options: Any,
) -> Engine:
    """Load an artifact, or a model folder or hub id that is compiled on first use.

    An artifact takes one option, ``hf_overrides`` with ``is_matryoshka`` or
    ``matryoshka_dimensions``; the others were decided when it was compiled. ``memory_limit`` is
    bytes, or a size like "2GB": a text whose estimate exceeds it is refused, and long texts wait
    for each other instead of exceeding it together. ``device`` is where an artifact for GPUs runs:
    cuda (the first GPU), cuda:1, or several, cuda:0,cuda:1.

    An engine of TensorRT is code: one from outside the store loads only with ``trust_plan``.
    ``rebuild`` builds it here, into the store, from the ONNX in the artifact, where it is not
    trusted or was built for another machine.

    Raises as ``compile`` does, and ArtifactError for an artifact that is damaged, not trusted or
    not for this machine.
    """
    chosen, store = make_options(**options), Store.default()
    limit = parse_bytes(memory_limit, "memory_limit")
    listener = on_event or warn
    path = Path(model).expanduser()
    matryoshka = None
    if is_artifact(path):
        artifact = open_artifact(path, store=store)
        matryoshka = _matryoshka_at_load(artifact, chosen)
    else:
        artifact = locate(model, refresh=refresh, on_event=listener, **options)
    if artifact.manifest.target in ENGINE_TARGETS:
        wish = Wish(device, trust_plan=trust_plan, rebuild=rebuild)
        artifact = runnable(artifact, store, wish, listener)
    return _opened(artifact, store, limit, device, matryoshka)


def locate(
    model: str | Path,
    *,
    refresh: bool = False,
    on_event: OnEvent | None = None,
    **options: Any,
) -> Artifact:
    """Return the artifact that ``load`` would load, compiled if need be, without running it.

    For who has others run it: the machine at hand need not be able to. ``options`` are those of
    ``compile``. Raises as ``load`` does.
    """
    store, path = Store.default(), Path(model).expanduser()
    if is_artifact(path):
        return open_artifact(path, store=store, check_host=False)
    job = compiler_process.Job(str(model), make_options(**options), store.root, refresh=refresh)
    with _naming_template(options):
        return _artifact(job, store, on_event or warn)[0]


def open_model(
    model: str | Path, *, refresh: bool = False, on_event: OnEvent | None = None, **options: Any
) -> Artifact:
    """Return what ``locate`` does, for who reads the artifact itself: its options are fixed.

    Raises as ``load`` does, and InvalidOption for options beside an artifact.
    """
    artifact = locate(model, refresh=refresh, on_event=on_event, **options)
    fixed = is_artifact(Path(model).expanduser())
    if fixed and _matryoshka_at_load(artifact, make_options(**options)) is not None:
        raise InvalidOption(
            "hf_overrides cannot change a compiled artifact: compile the model again",
            param="hf_overrides",
        )
    return artifact


def _opened(
    artifact: Artifact,
    store: Store,
    memory_limit: int | None,
    device: str | None,
    matryoshka: MatryoshkaSpec | None,
) -> Engine:
    engine = Engine(artifact, matryoshka=matryoshka, memory_limit=memory_limit, device=device)
    if PARITY_FILE in artifact.manifest.files:  # compiled where its device is not
        from poolc.runtime.first_load import complete

        complete(engine, store)
    return engine


def make_options(**options: Any) -> CompileOptions:
    """Build CompileOptions from keywords; enum values may be plain strings, None means unset.

    ``score_template`` may be the name of a template that comes with poolc, a file or Jinja source;
    its text is what the options hold, so that requests are looked up by what the template says.
    Raises InvalidOption for an unknown name or value, with the nearest name.
    """
    names = [f.name for f in fields(CompileOptions)]
    for name in options:
        if name not in names:
            raise InvalidOption(f"there is no option {name!r}; {nearest(name, names)}", param=name)
    given = {name: value for name, value in options.items() if value is not None}
    runner = given.get("runner", "auto")
    if runner not in RUNNERS:
        raise InvalidOption(
            f"runner is {runner!r}; allowed: {', '.join(RUNNERS)}{meant(runner, RUNNERS)}",
            param="runner",
        )
    if "tune" in given:
        given["tune"] = str(given["tune"])
        if given["tune"] not in TUNE_MODES:
            tuning_record(given["tune"])  # or say what is wrong with it
    if "score_template" in given:
        given["score_template"] = template_text(given["score_template"])
    try:
        return from_plain(CompileOptions, given, "option")
    except ValueError as error:
        raise InvalidOption(str(error).removeprefix("option.")) from error


@contextmanager
def _naming_template(options: Mapping[str, Any]) -> Iterator[None]:
    """Name the file of a score template in its errors: the compiler gets the text alone."""
    try:
        yield
    except InvalidOption as error:
        given = str(options.get("score_template") or "")
        if not given or not is_name(given) or not str(error).startswith("score_template "):
            raise
        raise InvalidOption(f"{given}: {error}", param="score_template") from error


def lookup(model: str, options: CompileOptions, store: Store) -> Path | None:
    """Return the stored artifact of a request, without network access; None if there is none."""
    found = _lookup(model, options, store)
    if found is None and options.tune == CompileOptions().tune:  # timed for longer is as good
        found = _lookup(model, replace(options, tune="full"), store)
    if found is not None:  # compiled where PyTorch is installed, perhaps
        return found
    here = resolved(options)
    return None if here == options else _lookup(model, here, store)


def _lookup(model: str, options: CompileOptions, store: Store) -> Path | None:
    folder = local_folder(model)
    identity = (
        _identity(model, options.revision, store)
        if folder is None
        else folder_identity(folder.name, store.source_digest(folder, from_onnx=options.from_onnx))
    )
    tokenizer, name = None, options.tokenizer
    if name is not None:
        tokenizer = _tokenizer_identity(name, store)
    if identity is None or (name is not None and tokenizer is None):
        return None
    return store.lookup(compile_key(identity, options, tokenizer))


def _tokenizer_identity(name: str, store: Store) -> Identity | None:
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return _identity(name, None, store)
    return folder_identity(folder.resolve().name, store.source_digest(folder.resolve()))


def _stored(
    model: str, options: CompileOptions, store: Store, on_event: OnEvent
) -> Artifact | None:
    """Open the stored artifact of a request; None if there is none that this machine can use."""
    found = lookup(model, options, store)
    usual = CompileOptions().defaults
    other = found is None and options.defaults is not usual
    if other:  # what the files decide is the same by either defaults
        found = lookup(model, replace(options, defaults=usual), store)
    if found is None:
        return None
    try:
        artifact = open_artifact(found, store=store)
        origins = artifact.manifest.spec.origins
        chosen = {origins.get(name) for name in ("pooling", "normalize")}
        return None if other and LIBRARY_DEFAULT in chosen else artifact
    except (ArtifactCorrupt, ArtifactIncompatible) as error:
        on_event({"event": "warning", "message": f"{error}; compiling it again"})
        return None


def warn(event: dict[str, Any]) -> None:
    """Pass the compiler's warnings on where nobody listens to its events."""
    if event["event"] == "warning":
        warnings.warn(event["message"], UserWarning, stacklevel=4)


def _identity(name: str, revision: str | None, store: Store) -> Identity | None:
    """Identify a hub id at the commit that it is known to mean; None if it is not known."""
    pinned = revision if revision and _COMMIT.match(revision) else None
    commit = pinned or store.recorded_commit(name, revision)
    return hub_identity(name, commit) if commit is not None else None


def _artifact(
    job: compiler_process.Job, store: Store, on_event: OnEvent
) -> tuple[Artifact, compiler_process.Done | None]:
    """Open the stored artifact of a request, or compile it (then Done is there)."""
    if is_artifact(Path(job.model).expanduser()):
        raise ModelNotFound(
            f"{job.model} is a compiled artifact already: give the model it was made from"
        )
    local_folder(job.model)  # a path that is not there needs no compiler to say so
    if not job.refresh and job.output is None and job.quality is None:
        stored = _stored(job.model, job.options, store, on_event)
        if stored is not None:
            return stored, None
    done = compiler_process.run(job, on_event)
    return open_artifact(done.path, store=store), done


def _matryoshka_at_load(artifact: Artifact, options: CompileOptions) -> MatryoshkaSpec | None:
    # What says the same as the artifact changes nothing: a target, pooling as the runner, the
    # template.
    asked = replace(options, hf_overrides={}, runner=options.runner.replace("pooling", "auto"))
    if asked.target == artifact.manifest.target:
        asked = replace(asked, target=CompileOptions().target)
    template = artifact.manifest.spec.template
    if template and asked.score_template == artifact.file(template).read_text(encoding="utf-8"):
        asked = replace(asked, score_template=None)
    changed = [
        f.name for f in fields(asked) if getattr(asked, f.name) != getattr(CompileOptions(), f.name)
    ]
    changed += [key for key in options.hf_overrides if key not in MATRYOSHKA_KEYS]
    if changed:
        raise InvalidOption(
            f"{', '.join(changed)} cannot change a compiled artifact: compile the model again"
        )
    spec = artifact.manifest.spec
    if not options.hf_overrides or spec.embedding_size is None:
        return None
    declared = {
        "is_matryoshka": spec.matryoshka.enabled,
        "matryoshka_dimensions": list(spec.matryoshka.dimensions),
    }
    return parse_matryoshka({**declared, **options.hf_overrides}, spec.embedding_size)
