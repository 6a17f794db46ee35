"""Tokenizers of the matrix: the class that a family has in transformers, trained on a few lines.

So that files, normalising, splitting and special tokens are the family's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers
from tokenizers.processors import TemplateProcessing

from poolc.compiler.json_files import read_json
from tests.models import CORPUS, write_json

LIMIT = 64  # tokens, of every model of the matrix


def train(folder: Path, name: str, **special: str) -> Any:
    """Train ``transformers.<name>`` and save it into ``folder``; return it as AutoTokenizer would.

    ``special`` renames special tokens, as families do that borrow another's class.
    """
    base = getattr(transformers, name)(**special)
    tokenizer = base.train_new_from_iterator(CORPUS, 450)
    return _save(folder, tokenizer)


def train_decoder(folder: Path, name: str, *, bos: bool, eos: bool) -> Any:
    """Train a decoder's tokenizer that pads on the left and adds these tokens to every text."""
    tokenizer = getattr(transformers, name)().train_new_from_iterator(CORPUS, 450)
    tokens = {
        "bos": tokenizer.bos_token if bos else None,
        "eos": tokenizer.eos_token if eos else None,
    }
    added = [token for token in tokens.values() if token]
    if added:
        start = f"{tokens['bos']} " if bos else ""
        end = f" {tokens['eos']}" if eos else ""
        backend = tokenizer.backend_tokenizer
        backend.post_processor = TemplateProcessing(
            single=f"{start}$A{end}",
            pair=f"{start}$A $B:1{end}",
            special_tokens=[(token, backend.token_to_id(token)) for token in added],
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return _save(folder, tokenizer, padding_side="left")


def _save(folder: Path, tokenizer: Any, **settings: Any) -> Any:
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    write_json(path, {**read_json(path), "model_max_length": LIMIT, **settings})
    return transformers.AutoTokenizer.from_pretrained(folder)
