"""Static models: a table of token vectors where others have a transformer.

Reads, without torch, what Sentence Transformers' StaticEmbedding and model2vec save:
``model.safetensors`` and a bare ``tokenizer.json``. A mapping of tokens to rows and a weight a
token (model2vec's quantised vocabularies) are folded into the table, one row a token.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

from safetensors import safe_open
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from poolc.compiler.architecture import Architecture
from poolc.compiler.json_files import read_json
from poolc.compiler.st_files import SentenceTransformer
from poolc.errors import CorruptWeights, TokenizerError
from poolc.spec import Trunk

STATIC_WEIGHTS = "model.safetensors"
_TOKENIZER = "tokenizer.json"
_TABLE, _MODEL2VEC_TABLE, MAPPING, TOKEN_WEIGHTS = (
    *("embedding.weight", "embeddings"),
    *("mapping", "weights"),
)


@dataclass(frozen=True, slots=True)
class StaticTokenizer:
    """The tokenizer as the library runs it: no special tokens; and what it says besides."""

    tokenizer: PreTrainedTokenizerBase
    max_length: int | None  # tokens that its own truncation leaves
    unknown_id: int | None
    median_chars: int  # of the tokens of its vocabulary


def static_config(folder: Path, st: SentenceTransformer) -> Any:
    """Return what stands in for transformers' configuration: config.json, where there is one."""
    fields = read_json(folder / "config.json")
    names = {"architectures": [st.reader], "model_type": "static"}
    return SimpleNamespace(**{**fields, **names})


def probe_static(folder: Path, config: Any) -> Architecture:
    """Read the table's size. Raises CorruptWeights."""
    shapes = _shapes(folder / STATIC_WEIGHTS)
    table = shapes.get(table_name(shapes), ())
    if len(table) != 2:
        name = table_name(shapes)
        raise CorruptWeights(f"{STATIC_WEIGHTS}: {name} has {len(table)} axes, not 2")
    rows = shapes[MAPPING][0] if MAPPING in shapes else table[0]
    return Architecture(
        name=config.architectures[0],
        config=config,
        trunk=Trunk.STATIC,
        auto=None,
        hidden_size=table[1],
        vocab_size=rows,
        position_limit=None,
        takes_token_types=False,
    )


def load_static_tokenizer(folder: Path) -> StaticTokenizer:
    """Load tokenizer.json. Raises TokenizerError."""
    if not (folder / _TOKENIZER).is_file():
        raise TokenizerError(f"{_TOKENIZER} is missing, which a static model is read with")
    plain = read_json(folder / _TOKENIZER)
    truncation = plain.get("truncation") or {}
    # The library asks for no special tokens; without this step there are none to ask for.
    plain |= {"post_processor": None, "truncation": None, "padding": None}
    try:
        backend = Tokenizer.from_str(json.dumps(plain))
    except Exception as error:  # tokenizers raises bare Exception for a malformed file
        raise TokenizerError(f"{_TOKENIZER} cannot be read: {error}") from error
    limit = truncation.get("max_length")
    side = str(truncation.get("direction") or "Right").lower()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=backend, truncation_side=side)
    return StaticTokenizer(
        wrapped, limit, _unknown_id(plain, backend), int(median(map(len, backend.get_vocab())))
    )


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, rows: int) -> None:
    """Refuse a table that has no row for a token. Raises TokenizerError."""
    highest = max(tokenizer.get_vocab().values())
    if highest >= rows:
        raise TokenizerError(
            f"{_TOKENIZER} has token {highest}, but the table of {STATIC_WEIGHTS} has {rows} rows, "
            "from 0: they belong to different models"
        )


def _unknown_id(plain: Mapping[str, Any], backend: Tokenizer) -> int | None:
    model = plain.get("model") or {}
    if "unk_id" in model:  # a unigram model
        return None if model["unk_id"] is None else int(model["unk_id"])
    token = model.get("unk_token")
    return None if token is None else backend.token_to_id(token)


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    if not path.is_file():
        raise CorruptWeights(f"{path.name} is missing, which holds the table of token vectors")
    with safe_open(path, framework="np") as file:
        names = list(file.keys())
        return {name: tuple(file.get_slice(name).get_shape()) for name in names}


def table_name(names: Mapping[str, Any]) -> str:
    """Return what the table is called. Raises CorruptWeights where it is not there."""
    for name in (_TABLE, _MODEL2VEC_TABLE):
        if name in names:
            return name
    raise CorruptWeights(
        f"{STATIC_WEIGHTS} holds neither {_TABLE} nor {_MODEL2VEC_TABLE}: it is no static model's"
    )
