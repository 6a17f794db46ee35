"""What is sent: texts as request bodies of a dialect. Pure; knows no sockets and no clocks."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from poolc.errors import InputError


class Dialect(StrEnum):
    """Whose request is sent, to which path."""

    OPENAI = "openai"
    VLLM = "vllm"
    TEI = "tei"
    COHERE = "cohere"
    OLLAMA = "ollama"


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: JSON for a path, of so many texts."""

    path: str
    body: bytes
    num_texts: int


_PATHS: Mapping[Dialect, str] = {
    Dialect.OPENAI: "/v1/embeddings",
    Dialect.VLLM: "/pooling",
    Dialect.TEI: "/embed",
    Dialect.COHERE: "/v2/embed",
    Dialect.OLLAMA: "/api/embed",
}
_Fields = Callable[[Sequence[str], str], dict[str, Any]]
_FIELDS: Mapping[Dialect, _Fields] = {
    Dialect.OPENAI: lambda texts, model: {
        "input": list(texts),
        "model": model,
        "encoding_format": "base64",  # what OpenAI's own client asks for
    },
    Dialect.VLLM: lambda texts, model: {"input": list(texts), "model": model},
    Dialect.TEI: lambda texts, model: {"inputs": list(texts)},
    Dialect.COHERE: lambda texts, model: {
        "texts": list(texts),
        "model": model,
        "input_type": "search_query",
        "embedding_types": ["float"],
    },
    Dialect.OLLAMA: lambda texts, model: {"input": list(texts), "model": model},
}
_WORDS = [
    "the",
    "of",
    "and",
    "river",
    "stone",
    "bridge",
    "oven",
    "bread",
    "password",
    "account",
    "market",
    "share",
    "cat",
    "sun",
]
SEED = 20261126


def asks(texts: Sequence[str], dialect: Dialect, model: str, per_request: int) -> list[Ask]:
    """Return requests of ``per_request`` texts each; texts are used again from the first on."""
    count = max(1, len(texts) // per_request)
    endless = itertools.cycle(texts)
    made = []
    for _ in range(count):
        chosen = list(itertools.islice(endless, per_request))
        body = json.dumps(_FIELDS[dialect](chosen, model)).encode()
        made.append(Ask(_PATHS[dialect], body, len(chosen)))
    return made


def read_texts(path: Path) -> list[str]:
    """Read texts: one a line, or JSON lines with ``text``. Raises InputError."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}", param="texts") from error
    if not lines:
        raise InputError(f"{path} holds no text", param="texts")
    return list(_texts(lines, path))


def made_texts(count: int = 1000) -> list[str]:
    """Return short texts that differ, the same every time."""
    draw = random.Random(SEED)
    return [" ".join(draw.choices(_WORDS, k=draw.randint(3, 20))) for _ in range(count)]


def _texts(lines: Iterable[str], path: Path) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        if not path.name.endswith((".jsonl", ".json")):
            yield line
            continue
        try:
            text = json.loads(line)["text"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}, line {number}: not a JSON object with text", param="texts"
            ) from error
        yield str(text)
