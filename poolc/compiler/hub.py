"""Downloads from the Hugging Face hub: which files, at which commit, with progress.

Only what the compiler reads is fetched: configuration, tokenizer, safetensors (pickles only where
none stand in for them) and, with trust given, Python files; from ONNX, the graph, and the files
that it names, instead of the weights that it stands in for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

from poolc.compiler.events import Progress
from poolc.errors import ModelNotFound
from poolc.model_cache.source_files import HEAD_PICKLES, onnx_graph, replaced, without_trunk_weights

# Names of a repository's files -> those to fetch.
Select = Callable[[Iterable[str]], list[str]]
# A folder of what was fetched, and the names of a repository's files -> those that are needed too.
Follow = Callable[[Path, Iterable[str]], list[str]]

_WANTED = (
    *("*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken", "*.safetensors"),
    *HEAD_PICKLES,
    "artifact.metadata",  # of Stanford's ColBERT
)
_PICKLED = ("*.bin", "*.pt")
_UNWANTED = (
    "onnx/*",
    "openvino/*",
    "coreml/*",
    "gguf/*",
    "original/*",
    "checkpoint-*/*",
    "training_args.bin",
    "optimizer.*",
    "*.gguf",
)


def cached(model: str, commit: str) -> Path | None:
    """Return the folder of what was downloaded of a repository at a commit, without any request."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, revision=commit, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def download(
    model: str,
    revision: str | None,
    select: Select,
    progress: Progress,
    follow: Follow = lambda folder, names: [],
) -> tuple[Path, str]:
    """Fetch a repository into the hub's own cache; return its folder and the commit it resolved to.

    ``follow`` says which files the fetched ones name. Raises ModelNotFound where the repository
    does not exist, is gated, or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        info = HfApi().model_info(model, revision=revision, files_metadata=True)
        commit = str(info.sha)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
        fetch = partial(_fetch, model, commit, sizes, progress)
        folder = None
        for name in select(sizes):
            folder = fetch(name)
        for name in follow(folder, sizes) if folder else ():
            fetch(name)
    except (HfHubHTTPError, HFValidationError, OSError, _transport_error(HfHubHTTPError)) as error:
        raise ModelNotFound(_explain(model, revision, error)) from error
    if folder is None:
        raise ModelNotFound(f"{model} on the hub holds no model files")
    return folder, commit


def _fetch(
    model: str, commit: str, sizes: Mapping[str, int], progress: Progress, name: str
) -> Path:
    """Fetch one file; return the folder of all."""
    from huggingface_hub import hf_hub_download

    bar = _progress_bar(name, sizes[name], progress)
    path = hf_hub_download(model, name, revision=commit, tqdm_class=bar)
    return Path(path).parents[name.count("/")]


def wanted(names: Iterable[str], *, trust_remote_code: bool, from_onnx: bool = False) -> list[str]:
    """Return the files of a repository that the compiler reads, sorted."""
    names = list(names)
    if from_onnx:
        kept = wanted(without_trunk_weights(names), trust_remote_code=trust_remote_code)
        graph = onnx_graph(names)
        return sorted({*kept, *([graph] if graph else [])})
    patterns = [*_WANTED, *(["*.py"] if trust_remote_code else [])]
    kept = [n for n in names if _matches(n, patterns) and not _matches(n, _UNWANTED)]
    beside: dict[str, list[str]] = {}
    for name in kept:
        beside.setdefault(_parent(name), []).append(name.rpartition("/")[2])
    kept += [
        name
        for name in names
        if name not in kept
        and _matches(name, _PICKLED)
        and not _matches(name, _UNWANTED)
        and not replaced(name, beside.get(_parent(name), ()))
    ]
    return sorted(kept)


def _transport_error(http_error: type[Exception]) -> type[Exception]:
    """Return the base of what the hub's HTTP client raises when nothing answers.

    The client has changed twice (requests, httpx, httpx2); the hub's own HTTP error derives from
    its base each time.
    """
    bases = (
        base for base in http_error.__mro__ if base.__name__ in ("HTTPError", "RequestException")
    )
    return next((base for base in bases if issubclass(base, Exception)), http_error)


def _parent(name: str) -> str:
    return name.rpartition("/")[0]


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _progress_bar(name: str, total: int, progress: Progress) -> Any:
    """Return a tqdm class that reports to ``progress`` instead of drawing."""
    from tqdm.auto import tqdm

    class Reporter(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs["disable"] = True
            super().__init__(*args, **kwargs)
            self._done = kwargs.get("initial", 0)

        def update(self, n: float | None = 1) -> bool | None:
            self._done += n or 0
            progress.downloaded(name, int(self._done), total)
            return None

    return Reporter


def _explain(model: str, revision: str | None, error: Exception) -> str:
    kind = type(error).__name__
    if kind == "RevisionNotFoundError":
        return f"{model} on the hub has no revision {revision!r}: give a branch, tag or commit"
    if kind == "GatedRepoError":
        return f"{model} is gated: accept its terms on the hub, then `hf auth login` (or HF_TOKEN)"
    if kind == "HFValidationError":
        return f"there is no folder {model}, nor is it a hub id (name or owner/name)"
    if kind == "RepositoryNotFoundError":
        return (
            f"there is no folder {model}, and the hub has no such model (if it is private: "
            "`hf auth login`, or HF_TOKEN)"
        )
    first = next(iter(str(error).strip().splitlines()), kind)
    return f"{model} is not a folder, and the hub cannot be reached for it: {first}"
