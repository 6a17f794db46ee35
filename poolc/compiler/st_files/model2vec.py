"""model2vec's folders: config.json, tokenizer.json and a table of vectors, without modules.json.

Where both are there, modules.json holds: it is what Sentence Transformers reads.
"""

from __future__ import annotations

from pathlib import Path

from poolc.compiler.json_files import read_json
from poolc.compiler.st_files.chain import MODEL2VEC, SentenceTransformer
from poolc.compiler.st_files.pooling import PoolingConfig
from poolc.compiler.st_files.transformer import TransformerConfig
from poolc.errors import UnsupportedModel
from poolc.spec import PoolingType

_FILE = "config.json"


def is_model2vec(folder: Path) -> bool:
    """Return whether config.json says that the folder is model2vec's."""
    config = read_json(folder / _FILE)
    return config.get("model_type") == "model2vec" or config.get("architectures") == ["StaticModel"]


def read_model2vec(folder: Path) -> SentenceTransformer:
    """Read the folder as the chain that it stands for. Raises UnsupportedModel."""
    normalize = read_json(folder / _FILE).get("normalize", False)
    if not isinstance(normalize, bool | None):
        raise UnsupportedModel(f"{_FILE}: normalize is {normalize!r}; allowed: true, false")
    return SentenceTransformer(
        reader=MODEL2VEC,
        transformer="",
        bert=TransformerConfig(),
        token_layers=(),
        pooled=PoolingConfig((PoolingType.MEAN,)),
        pooling_file=_FILE,
        layers=(),
        normalize=bool(normalize),
        file=_FILE,
    )
