"""Where an artifact came from, and which vector space it answers in.

Knows nothing about graphs: it names and hashes what went in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from poolc.compiler.json_files import read_json
from poolc.compiler.recognize import Recognized
from poolc.compiler.source import TOKENIZER_FILES, SourceModel, tokenizer_files
from poolc.model_cache.manifest import Source
from poolc.model_cache.manifest import space_id as hash_space
from poolc.model_cache.serde import canonical_json
from poolc.spec import route_set

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
# What config.json says about heads, which the spec holds, and about nothing that is computed.
_NOT_COMPUTED = frozenset(
    {
        *("_name_or_path", "architectures", "auto_map", "transformers_version"),
        *("dtype", "torch_dtype", "use_cache", "gradient_checkpointing"),
        *("is_matryoshka", "matryoshka_dimensions", "id2label", "label2id", "problem_type"),
        *("sentence_transformers", "sbert_ce_default_activation_function"),
    }
)


def source_record(model: SourceModel, tokenizer: SourceModel | None, transformer: str) -> Source:
    """Return the manifest's source; ``tokenizer``'s files stand where the model's own would."""
    files = dict(model.files)
    if tokenizer is not None:
        files = {name: digest for name, digest in files.items() if not _of_tokenizer(name)}
        for path in tokenizer_files(tokenizer.folder):
            digest = tokenizer.files[path.relative_to(tokenizer.folder).as_posix()]
            files[(PurePosixPath(transformer) / path.name).as_posix()] = digest
    return Source(model.id, model.revision, files)


def space_id(folder: Path, recognized: Recognized, files: Mapping[str, str]) -> str:
    """Hash what defines the vectors: the heads, and every file and setting behind them.

    ``folder`` is the one that was compiled, with overrides in its config.json.
    """
    inputs = {
        name: digest
        for name, digest in files.items()
        if name.endswith(_WEIGHTS) or _of_onnx(name) or _of_tokenizer(name)
    }
    routes = {name: route.recognized for name, route in recognized.routes.items()}
    for name, found in {"": recognized, **routes}.items():
        config = read_json(folder / found.transformer / "config.json")
        computed = {key: value for key, value in config.items() if key not in _NOT_COMPUTED}
        digest = hashlib.sha256(canonical_json(computed)).hexdigest()
        inputs[route_set("config.json", name)] = digest
        if found.st is not None:
            inputs[route_set("do_lower_case", name)] = str(found.st.lower_case)
    if recognized.template is not None:
        inputs["score_template"] = hashlib.sha256(recognized.template.encode()).hexdigest()
    return hash_space(recognized.spec, inputs)


def _of_onnx(name: str) -> bool:
    return ".onnx" in name.rpartition("/")[2]  # model.onnx, and model.onnx_data of large ones


def _of_tokenizer(name: str) -> bool:
    return name.rpartition("/")[2] in TOKENIZER_FILES
