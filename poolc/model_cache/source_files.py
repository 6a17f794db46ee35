"""The content of a source model's folder: which files make the model, and their sha256.

Knows nothing about formats beyond file names. Links are followed: the hub's cache is made of them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from poolc.errors import ArtifactCorrupt, ModelError, ModelNotFound
from poolc.model_cache.onnx_paths import external_locations
from poolc.model_cache.stamps import FileStamp, Hashed, Record, Stamps, hash_file

# A repository on the hub: ``name`` or ``owner/name``.
_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$")
# The last of an adapter, which the compiler refuses with what to do.
_MODEL_FILES = ("config.json", "modules.json", "adapter_config.json")

_STAMP_KIND = "source"
_ONNX_STAMP_KIND = "source-onnx"
_SUBJECT = "files"

_SKIPPED_FOLDERS = frozenset({"onnx", "openvino", "__pycache__"})
_SKIPPED_SUFFIXES = frozenset(
    # documents and pictures
    {".md", ".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp", ".bmp", ".ico", ".pdf"}
    # weights of other frameworks
    | {".h5", ".msgpack", ".ot", ".gguf", ".onnx", ".onnx_data"}
)
_PICKLE_SUFFIXES = frozenset({".bin", ".pt", ".pth"})
_WEIGHT_SUFFIXES = _PICKLE_SUFFIXES | {".safetensors"}
# Whatever else a folder holds, one of these lies beside the transformer's configuration.
_TOKENIZER_FILES = frozenset({"tokenizer.json", "tokenizer_config.json", "vocab.txt"})
# The graphs that a transformer's folder ships, the one that Sentence Transformers prefers first.
ONNX_FILES = ("onnx/model.onnx", "model.onnx")
# The weights of a module, whole or in parts. An adapter, or another head, is not its weights.
_SAFETENSORS = re.compile(r"^model(-\d+-of-\d+)?\.safetensors(\.index\.json)?$")
# BGE-M3's heads lie beside the weights as pickles, whatever the format of the weights.
HEAD_PICKLES = ("colbert_linear.pt", "sparse_linear.pt")


def local_folder(model: str) -> Path | None:
    """Return the model folder that ``model`` names, or None where it can only be a hub id.

    Raises ModelNotFound for a path with no model, and for what is neither path nor hub id.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        if not any((folder / name).exists() for name in _MODEL_FILES):
            raise ModelNotFound(
                f"{model} holds neither config.json nor modules.json: "
                "give a Hugging Face or Sentence Transformers model folder, or a hub id"
            )
        return folder.resolve()
    if folder.exists():
        raise ModelNotFound(f"{model} is a file; give a model folder or a hub id")
    if not _HUB_ID.match(model):
        raise ModelNotFound(f"there is no folder {model}, nor is it a hub id (name or owner/name)")
    return None


def has_safetensors(names: Iterable[str]) -> bool:
    """Say whether the files of a folder have the weights of a module as safetensors."""
    return any(_SAFETENSORS.match(name) for name in names)


def replaced(pickle: str, names: Collection[str]) -> bool:
    """Say whether safetensors among the ``names`` of a folder are read instead of a pickle in it.

    They are the weights of the module, or the same tensors under the name of the pickle.
    """
    return has_safetensors(names) or Path(pickle).with_suffix(".safetensors").name in names


def onnx_graph(names: Iterable[str]) -> str | None:
    """Return which of a model's files is the ONNX graph that it ships; None where there is none.

    The graph in ``onnx/`` comes first, as Sentence Transformers prefers it. Other variants
    (quantised, optimised) are never taken.
    """
    present = set(names)
    # Old Sentence Transformers folders have the transformer, and its graph, in 0_Transformer/.
    places = ["", *sorted(folder for folder in _trunk_folders(present) if folder)]
    graphs = [f"{place}{file}" for place in places for file in ONNX_FILES]
    return next((name for name in graphs if name in present), None)


def onnx_weights(folder: Path, graph: str) -> list[str]:
    """Return the files beside a graph that it says hold its weights, whether they are there or not.

    What lies elsewhere, and a damaged graph, are for the compiler to refuse.
    """
    path = folder / graph
    try:
        with path.open("rb") as file:
            found = set(external_locations(file, path.stat().st_size))
    except ArtifactCorrupt:
        return []
    below = graph[: graph.rfind("/") + 1]
    return sorted(f"{below}{name}" for name in found if name and Path(name).name == name)


def without_trunk_weights(names: Iterable[str]) -> list[str]:
    """Return names without the transformer's weights, which a shipped ONNX graph stands in for.

    BGE-M3's heads stay: they say what the model is.
    """
    present = list(names)
    trunks = _trunk_folders(present)
    return [
        name
        for name in present
        if name[: name.rfind("/") + 1] not in trunks
        or Path(name).suffix.lower() not in _WEIGHT_SUFFIXES
        or Path(name).name in HEAD_PICKLES
    ]


def _trunk_folders(names: Iterable[str]) -> set[str]:
    """Return the folders that hold a tokenizer, each with its "/" ("" for the model's own)."""
    split = (name.rpartition("/") for name in names)
    return {folder + slash for folder, slash, file in split if file in _TOKENIZER_FILES}


def source_digest(
    folder: Path, stamps: Stamps | None = None, *, from_onnx: bool = False
) -> dict[str, str]:
    """Return relative path -> sha256 of every file that matters in a model folder, sorted by path.

    With ``stamps``, files that kept their device, inode, size and times are not hashed again.
    ``from_onnx``: the shipped ONNX graph matters, and not the weights that it stands in for.
    Raises ModelNotFound for no folder and ModelError for a file that cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ModelNotFound(f"{folder} is not a folder")
    real = os.path.realpath(folder)
    kind = _ONNX_STAMP_KIND if from_onnx else _STAMP_KIND
    kept = stamps.load(kind, real, _SUBJECT) if stamps is not None else Record(_SUBJECT)
    files: dict[str, Hashed] = {}
    for name in sorted(_of_onnx(folder) if from_onnx else _relevant_files(folder)):
        try:
            stamp = FileStamp.of(os.stat(folder / name))
            known = kept.files.get(name)
            unchanged = known is not None and known.stamp == stamp
            files[name] = known if known is not None and unchanged else hash_file(folder / name)
        except OSError as error:
            reason = error.strerror or str(error)
            raise ModelError(f"{folder / name} cannot be read: {reason}") from error
    record = Record(_SUBJECT, files)
    if stamps is not None and record != kept:
        stamps.save(kind, real, record)
    return {name: hashed.sha256 for name, hashed in files.items()}


def _of_onnx(folder: Path) -> set[str]:
    relevant = set(_relevant_files(folder))
    places = {folder / trunk for trunk in ("", *_trunk_folders(relevant))}
    files = {
        path.relative_to(folder).as_posix()
        for place in places
        for path in (*place.glob("*"), *place.glob("onnx/*"))
        if path.is_file()
    }
    found = set(without_trunk_weights(relevant))
    graph = onnx_graph(files | relevant)
    if graph is not None:
        found |= {graph, *(name for name in onnx_weights(folder, graph) if name in files)}
    return found


def _relevant_files(folder: Path) -> Iterator[str]:
    seen: set[str] = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:  # a link to a folder above would go round for ever
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(
            name for name in folders if name not in _SKIPPED_FOLDERS and not name.startswith(".")
        )
        for name in files:
            if _matters(name, files):
                yield (Path(root) / name).relative_to(folder).as_posix()


def _matters(name: str, beside: list[str]) -> bool:
    if name.startswith(".") or name.upper().startswith("README"):
        return False
    suffix = Path(name).suffix.lower()
    if suffix in _PICKLE_SUFFIXES:
        return name in HEAD_PICKLES or not replaced(name, beside)
    return suffix not in _SKIPPED_SUFFIXES
