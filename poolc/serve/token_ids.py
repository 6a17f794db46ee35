"""What token ids in OpenAI's requests are: the model's own, cl100k's, or refused.

LangChain's OpenAIEmbeddings sends ids of cl100k, the vocabulary of OpenAI's models, whatever model
it speaks to; read as the model's own they are another text. With ``cl100k`` they are turned back
into text. The file is tiktoken's: a token in base64 and its id on each line.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from poolc.errors import InputError, InvalidOption, InvalidText
from poolc.runtime.request import Item
from poolc.serve.settings import Settings

# tiktoken keeps files in its cache under the sha1 of their address (its load.py).
_ADDRESS = "https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken"
_CACHE = "TIKTOKEN_CACHE_DIR"
_NUM_TOKENS = 100_256


class TokenIds:
    """Applies a server's policy. Raises InvalidOption where ``cl100k`` has no vocabulary."""

    def __init__(self, settings: Settings) -> None:
        self._policy = settings.token_ids
        self._tokens: Mapping[int, bytes] = {}
        if settings.token_ids == "cl100k":
            self._tokens = _read(_file(settings))

    def items(self, items: Sequence[Item]) -> list[Item]:
        """Return items as the engine gets them. Raises InvalidText for ids that are none."""
        if self._policy == "model":
            return list(items)
        return [item if isinstance(item, (str, tuple)) else self._text(item, i)
                for i, item in enumerate(items)]  # fmt: skip

    def _text(self, ids: Sequence[int], index: int) -> str:
        if self._policy == "refuse":
            raise InvalidText(
                f"item {index} is token ids, which this server does not take: send text (of "
                "LangChain's OpenAIEmbeddings, check_embedding_ctx_length=False)",
                index=index,
            )
        unknown = next((i for i in ids if i not in self._tokens), None)
        if unknown is not None:
            raise InvalidText(f"item {index}: cl100k has no token {unknown}", index=index)
        # Long texts come in parts that may end within a character.
        return b"".join(self._tokens[i] for i in ids).decode("utf-8", "replace")


def _file(settings: Settings) -> Path:
    if settings.cl100k_file is not None:
        return Path(settings.cl100k_file)
    folder = os.environ.get(_CACHE)
    if folder is None:
        raise InvalidOption(
            f"token_ids is cl100k, and its vocabulary is not there: give --cl100k-file, or set "
            f"{_CACHE} to a cache of tiktoken's",
            param="token_ids",
        )
    return Path(folder) / hashlib.sha1(_ADDRESS.encode()).hexdigest()


def _read(path: Path) -> dict[int, bytes]:
    try:
        lines = path.read_bytes().splitlines()
        pairs = (line.split() for line in lines if line)
        tokens = {int(number): base64.b64decode(token) for token, number in pairs}
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path} as cl100k: {error}", param="cl100k_file") from error
    if len(tokens) != _NUM_TOKENS:
        raise InputError(
            f"{path} holds {len(tokens)} tokens; cl100k has {_NUM_TOKENS}", param="cl100k_file"
        )
    return tokens
