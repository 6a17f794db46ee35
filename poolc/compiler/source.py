"""Hub id or path -> a local folder whose weights are safe to read.

Safetensors are read as they are, pickles are turned into them (``pickles.py``). From ONNX, the
graph that the model ships stands in for the weights of its transformer (``onnx_source/``). Knows
nothing about what the model is; imports torch only to read pickles.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from poolc.compiler.adapters import TASK_KEY, check_no_adapter, merge_adapter, tasks
from poolc.compiler.events import Progress
from poolc.compiler.hub import cached, download, wanted
from poolc.compiler.json_files import read_json
from poolc.compiler.natives import native_config
from poolc.compiler.onnx_source.selection import check_shipped, follow, select
from poolc.compiler.overrides import check_overrides
from poolc.compiler.own_code import foreign_class
from poolc.compiler.st_files import module_paths, native_modules, transformer_path
from poolc.errors import (
    CorruptWeights,
    InvalidOption,
    MissingDependency,
    TokenizerError,
)
from poolc.model_cache.requests import Identity, folder_identity, has_torch, hub_identity
from poolc.model_cache.source_files import (
    HEAD_PICKLES,
    has_safetensors,
    local_folder,
    onnx_graph,
    onnx_weights,
    replaced,
)
from poolc.model_cache.store import Store
from poolc.spec import CompileOptions

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "spm.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)
# The pickles that transformers and sentence-transformers load; others are not this model's weights.
_PICKLE = re.compile(r"^pytorch_model(-\d+-of-\d+)?\.bin$")
# Keys that transformers takes for given where they are there at all: null takes them away.
_NULLABLE = ("auto_map", "quantization_config", "compression_config")


@dataclass(frozen=True, slots=True)
class SourceModel:
    """A model on this disk: ``files`` maps relative path to sha256 of everything that counts."""

    folder: Path
    id: str  # hub id, or the folder's name
    revision: str | None  # commit on the hub
    files: Mapping[str, str]

    def identity(self) -> Identity:
        """Return what the store looks this model up by."""
        if self.revision is not None:
            return hub_identity(self.id, self.revision)
        return folder_identity(self.id, self.files)


def fetch(
    model: str,
    options: CompileOptions,
    store: Store,
    progress: Progress,
    *,
    refresh: bool = False,
) -> SourceModel:
    """Find ``model`` on disk, or download it at ``options.revision``.

    A hub id and revision that were compiled before mean the commit of that time, whose files are
    on this disk, unless ``refresh``. Raises ModelNotFound.
    """
    folder = local_folder(model)
    if folder is not None:
        files = store.source_digest(folder, from_onnx=options.from_onnx)
        if options.from_onnx:
            check_shipped(folder.name, (p.relative_to(folder) for p in folder.rglob("*.onnx")))
        return SourceModel(folder, folder.name, None, files)
    known = None if refresh else store.recorded_commit(model, options.revision)
    # Python files are fetched only with trust, which the earlier compile need not have given.
    local = cached(model, known) if known and not options.trust_remote_code else None
    if known is not None and local is not None and _has_weights(local, options):
        return _of_hub(local, model, known, options, store)
    chosen = partial(select, model, options)
    more = {"follow": follow} if options.from_onnx else {}
    local, commit = download(model, known or options.revision, chosen, progress, **more)
    return _of_hub(local, model, commit, options, store)


def fetch_tokenizer(
    name: str, store: Store, progress: Progress, *, refresh: bool = False
) -> SourceModel:
    """Find another tokenizer on disk, or download its files only, as ``fetch`` does a model's.

    Raises ModelNotFound or TokenizerError.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        resolved = folder.resolve()
        found = SourceModel(resolved, resolved.name, None, store.source_digest(folder))
    else:
        known = None if refresh else store.recorded_commit(name, None)
        local = cached(name, known) if known else None
        if known is None or local is None or not any(tokenizer_files(local)):
            local, known = download(name, known, _of_tokenizer, progress)
        found = SourceModel(local, name, known, store.source_digest(local))
    if not any(tokenizer_files(found.folder)):
        raise TokenizerError(f"{name} holds no tokenizer: none of {', '.join(TOKENIZER_FILES)}")
    return found


def tokenizer_files(folder: Path) -> Iterator[Path]:
    """Yield the tokenizer's files of a model folder."""
    below = folder / transformer_path(folder)
    return (below / name for name in TOKENIZER_FILES if (below / name).exists())


def _of_tokenizer(names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if name.rpartition("/")[2] in TOKENIZER_FILES)


def _has_weights(folder: Path, options: CompileOptions) -> bool:
    if options.from_onnx:
        graph = onnx_graph(p.relative_to(folder).as_posix() for p in folder.rglob("*"))
        return bool(graph and all((folder / name).exists() for name in onnx_weights(folder, graph)))
    below = folder / transformer_path(folder)
    names = (path.name for path in below.glob("model*"))
    return has_safetensors(names) or bool(_weight_pickles(below))


def _of_hub(
    local: Path, hub_id: str, commit: str, options: CompileOptions, store: Store
) -> SourceModel:
    """Describe a download by what a fresh one would hold, whatever else the hub's cache has."""
    files = store.source_digest(local, from_onnx=options.from_onnx)
    kept = wanted(files, trust_remote_code=options.trust_remote_code, from_onnx=options.from_onnx)
    if options.from_onnx:
        kept = sorted({*kept, *follow(local, files)})
    return SourceModel(local, hub_id, commit, {name: files[name] for name in kept})


def materialize(
    source: SourceModel,
    tokenizer: SourceModel | None,
    options: CompileOptions,
    work: Path,
    progress: Progress,
) -> Path:
    """Return a folder with safetensors weights and overridden configuration.

    It is the source's own folder where that already holds both, else a mirror in ``work``: links to
    the source's files, with pickled weights converted, ``hf_overrides`` merged into config.json,
    the files of another ``tokenizer`` in place of its own, and an author's own layout in that of
    transformers (``natives.py``, ``adapters.py``). The compiler and the reference of the
    parity gate read the same folder.

    Raises UnsafeWeights, CorruptWeights, UnsupportedModel or InvalidOption.
    """
    trunk = transformer_path(source.folder)
    paths = [p for p in module_paths(source.folder) if p != trunk or not options.from_onnx]
    folders = [source.folder / path for path in paths]
    for folder in folders if options.from_onnx else [source.folder, *folders]:
        check_no_adapter(folder)
    for path in (path for folder in folders for path in sorted(folder.glob("*.safetensors"))):
        _check_safetensors(path, source.folder)
    pickles = [path for folder in folders for path in _weight_pickles(folder)]
    heads = [path for folder in folders for path in _head_pickles(folder)]
    plain = not (pickles or heads) and not options.hf_overrides and tokenizer is None
    if plain and not _foreign_layouts(source.folder):
        return source.folder
    mirror = work / "source"
    _mirror(source.folder, mirror, skip={*pickles})
    if pickles or heads:
        _convert(pickles, heads, mirror, source, options, progress)
    if options.hf_overrides:
        _override_config(mirror, options, progress)
    if tokenizer is not None:
        _replace_tokenizer(mirror, tokenizer.folder)
    foreign = _foreign_layouts(mirror)  # after the overrides, which may be of either layout
    if foreign:
        _translate(mirror, foreign)
    return mirror


def _convert(
    pickles: list[Path],
    heads: list[Path],
    mirror: Path,
    source: SourceModel,
    options: CompileOptions,
    progress: Progress,
) -> None:
    """Write pickled weights into the mirror as safetensors, a file a folder."""
    if not has_torch():
        raise MissingDependency(
            f"{min([*pickles, *heads]).relative_to(source.folder)} is a pickle, which only PyTorch "
            "reads: "
            'pip install "poolc[compile,cpu]", or convert it to safetensors'
        )
    from safetensors.torch import save_file

    from poolc.compiler.pickles import load_pickles

    for folder in sorted({path.parent for path in pickles}):
        tensors = load_pickles(
            [path for path in pickles if path.parent == folder], options, progress
        )
        target = mirror / folder.relative_to(source.folder) / "model.safetensors"
        save_file(tensors, target, metadata={"format": "pt"})
    for path in heads:
        tensors = load_pickles([path], options, progress)
        target = mirror / path.relative_to(source.folder).with_suffix(".safetensors")
        save_file(tensors, target, metadata={"format": "pt"})


def merge(base: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested objects; scalars and lists of ``override`` replace those of ``base``."""
    merged = dict(base)
    for key, value in override.items():
        old = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(old, Mapping)
        merged[key] = merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def _weight_pickles(folder: Path) -> list[Path]:
    """Return a module's pickled weights, unless safetensors beside them stand in for them."""
    names = [path.name for path in folder.glob("*.safetensors*")]
    pickles = (path for path in folder.glob("*.bin") if _PICKLE.match(path.name))
    return sorted(path for path in pickles if not replaced(path.name, names))


def _head_pickles(folder: Path) -> list[Path]:
    """Return pickled heads that lie beside the weights, unless safetensors stand in for them."""
    paths = [folder / name for name in HEAD_PICKLES]
    return [p for p in paths if p.is_file() and not p.with_suffix(".safetensors").exists()]


def _check_safetensors(path: Path, folder: Path) -> None:
    try:
        with safe_open(path, framework="np") as file:
            file.keys()
    except (SafetensorError, OSError) as error:
        raise CorruptWeights(
            f"{path.relative_to(folder)} is not valid safetensors ({error}): download it again"
        ) from error


def _mirror(folder: Path, mirror: Path, skip: set[Path]) -> None:
    for root, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if name not in (".git", ".cache")]
        target = mirror / Path(root).relative_to(folder)
        target.mkdir(parents=True, exist_ok=True)
        for name in names:
            # A shard index would point at the shards that were merged.
            if Path(root) / name not in skip and not name.endswith(".bin.index.json"):
                (target / name).symlink_to((Path(root) / name).resolve())


def _replace_tokenizer(mirror: Path, tokenizer: Path) -> None:
    for path in list(tokenizer_files(mirror)):
        path.unlink()
    for path in tokenizer_files(tokenizer):
        (mirror / transformer_path(mirror) / path.name).symlink_to(path.resolve())


def _foreign_layouts(folder: Path) -> list[str]:
    """Return the modules' folders that hold a transformer in its author's own layout."""
    found = []
    for path in module_paths(folder):
        config = read_json(folder / path / "config.json")
        if native_config(config) is not None or tasks(folder / path, config):
            found.append(path)
    return found


def _translate(mirror: Path, foreign: list[str]) -> None:
    """Bring an author's own layout into that of transformers."""
    for folder in (mirror / path for path in foreign):
        path = folder / "config.json"
        config = read_json(path)
        translated = native_config(config) or config
        adapters = tasks(folder, translated)
        _replace(path, translated)
        if adapters:
            task = merge_adapter(folder, translated, adapters)
            _replace(path, {**translated, TASK_KEY: task})
    modules = mirror / "modules.json"
    if modules.exists():
        # Their Transformer module only chose the adapter.
        _replace(modules, native_modules(modules))


def _replace(path: Path, value: Any) -> None:
    path.unlink()  # it may be a link to the source's own file
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")


def _override_config(mirror: Path, options: CompileOptions, progress: Progress) -> None:
    path = mirror / transformer_path(mirror) / "config.json"
    if not path.exists():
        raise InvalidOption(
            "hf_overrides needs a config.json, which this model does not have", param="hf_overrides"
        )
    raw = read_json(path)
    for warning in check_overrides(raw, options.hf_overrides):
        progress.warn(warning)
    merged = merge(raw, options.hf_overrides)
    gone = {name for name in _NULLABLE if merged.get(name, ...) is None}
    known = foreign_class(merged) is None and native_config(merged) is None
    if "is_causal" in options.hf_overrides and known and not options.trust_remote_code:
        gone.add("auto_map")  # who says how the model attends has said what its own code would
    _replace(path, {name: value for name, value in merged.items() if name not in gone})
