"""Embedding models whose files or texts ask for more than a family with a head."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.compiler.folders import edit_json
from tests.matrix.checkpoints.base import Ask, Checkpoint, compared, worst
from tests.matrix.compare import TEXTS, Measured, library, vectors
from tests.matrix.families import FAMILIES
from tests.matrix.heads import HEADS
from tests.matrix.words import LIMIT
from tests.models import tiny_embedder, write_json
from tests.runtime.windows import by_hand

if TYPE_CHECKING:
    from poolc.runtime.engine import Engine

_LIBRARY = "sentence-transformers"
_GEMMA = {"query": "task: search result | query: ", "document": "title: none | text: "}
_INSTRUCT = {"query": "Instruct: find the river\nQuery:", "document": ""}
_CHUNKED = ["a river", TEXTS[1] * 3, "bread needs flour, water and salt; " * 90]


def _model(family: str, head: str, prompts: dict[str, str]) -> Callable[[Path], Path]:
    """A family with a head, and prompts of queries and documents."""

    def build(root: Path) -> Path:
        folder = root / "model"
        folder.mkdir()
        HEADS[head].build(FAMILIES[family], folder)
        settings = {"model_type": "SentenceTransformer", "prompts": prompts}
        write_json(folder / "config_sentence_transformers.json", settings)
        return folder

    return build


def _vocabulary_only(root: Path) -> Path:
    """Files of a slow tokenizer: that texts end with a token is said in tokenizer_config.json.

    And code of the model's own, which attends both ways, as its config.json says.
    """
    folder = _model("qwen2-bidirectional", "last", _INSTRUCT)(root)
    model = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    write_json(folder / "vocab.json", model["vocab"])
    merges = "\n".join(" ".join(merge) for merge in model["merges"])
    (folder / "merges.txt").write_text(merges, encoding="utf-8")
    (folder / "tokenizer.json").unlink()
    edit_json(folder / "tokenizer_config.json", add_eos_token=True)
    auto_map = {"AutoModel": "modeling_qwen.Qwen2Model"}
    edit_json(folder / "config.json", auto_map=auto_map)  # beside is_causal, which stands for it
    return folder


def _without_prompt(root: Path) -> Path:
    folder = _model("t5", "dense", {})(root)
    edit_json(folder / "1_Pooling" / "config.json", include_prompt=False)
    return folder


def _embedder(root: Path) -> Path:
    folder = root / "model"
    folder.mkdir()
    tiny_embedder(folder)
    return folder


def _prompted(folder: Path, engine: Engine) -> Measured:
    """Compare texts without prompt, queries and documents."""
    model = library(folder)
    return worst(
        vectors(model, engine),
        _side(model.encode_query, lambda texts: engine.embed_query(texts, truncate=True)),
        _side(model.encode_document, lambda texts: engine.embed_document(texts, truncate=True)),
    )


def _side(encode: Any, ask: Ask) -> Measured:
    expected = [encode([text], batch_size=1)[0] for text in TEXTS]
    return compared(_LIBRARY, ask, TEXTS, expected, longest=LIMIT)


def _last_is_end(folder: Path, engine: Engine) -> Measured:
    from transformers import AutoTokenizer

    words = AutoTokenizer.from_pretrained(folder)
    assert words.padding_side == "left"
    assert engine.tokenize(TEXTS[0])[-1] == words.eos_token_id
    return _prompted(folder, engine)


def _uncounted(folder: Path, engine: Engine) -> Measured:
    model, parts = library(folder), []
    for prompt in ("", "Represent the river: ", "query:"):

        def ask(texts: list[Any], prompt: str = prompt) -> Any:
            return engine.embed(texts, prompt=prompt, truncate=True)

        expected = [model.encode([text], prompt=prompt)[0] for text in TEXTS]
        parts.append(compared(_LIBRARY, ask, TEXTS, expected, longest=LIMIT))
    return worst(*parts)


def _chunked(folder: Path, engine: Engine) -> Measured:
    """The mean of all windows' token vectors, which averaging windows must equal."""
    model = library(folder)
    lengths = [len(model.tokenizer(text)["input_ids"]) for text in _CHUNKED]
    return compared(
        f"{_LIBRARY}, token vectors of all windows averaged",
        lambda texts: engine.embed(texts, chunk=True, prompt="", normalize=False),
        _CHUNKED,
        [by_hand(model, text, LIMIT)[1] for text in _CHUNKED],
        longest=max(lengths),
    )


CHECKPOINTS = (
    Checkpoint(
        "embeddinggemma",
        "EmbeddingGemma: bidirectional Gemma 3, two Dense modules, prompts",
        "google/embeddinggemma-300m",
        _model("gemma3", "dense", _GEMMA),
        _prompted,
    ),
    Checkpoint(
        "include-prompt-false",
        "pooling that does not count the prompt",
        "hkunlp/instructor-base",
        _without_prompt,
        _uncounted,
    ),
    Checkpoint(
        "left-padding",
        "last token, left padding, end token added by tokenizer.json",
        "Qwen/Qwen3-Embedding-0.6B",
        _model("qwen3", "last", _INSTRUCT),
        _last_is_end,
    ),
    Checkpoint(
        "add-eos-token",
        "last token, left padding, add_eos_token and no tokenizer.json",
        "Alibaba-NLP/gte-Qwen2-1.5B-instruct",
        _vocabulary_only,
        _last_is_end,
        note="revisions with is_causal false in config.json; the repository's own classes of model "
        "and tokenizer are not run",
    ),
    Checkpoint(
        "chunked",
        "texts longer than the model, in windows",
        "any model of mean pooling, such as intfloat/multilingual-e5-base",
        _embedder,
        _chunked,
    ),
)
