"""The models that are timed, with weights of a seed, and the texts: nothing is downloaded.

``data`` is a folder with ``texts.json`` (``{"queries": [...], "documents": [...]}``) and
``tokenizer.json`` (WordPiece); without it both are made here, from generated words.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import workload
from benchmarks.models import BERT_TOKENIZER

SEED = 20261126
LONG_TOKENS = 512
_TOKENIZER_CONFIG = {**BERT_TOKENIZER, "model_max_length": LONG_TOKENS}
_LONG_CHARS = 3500  # enough for 512 tokens of prose


@dataclass(frozen=True, slots=True)
class Shape:
    """Layers and hidden size of an encoder; its feed-forward is four times as wide."""

    title: str
    config: str
    layers: int
    hidden: int
    heads: int
    precisions: tuple[str, ...] = ("fp16",)

    def flops(self, lengths: list[int]) -> float:
        """Return the floating-point operations of one pass, products and attention only."""
        per_token = 24 * self.hidden**2
        return float(self.layers * sum(n * (per_token + 4 * n * self.hidden) for n in lengths))


SHAPES = {
    "minilm": Shape("MiniLM-L6", "BertConfig", 6, 384, 12),
    "bert-base": Shape("BERT-base", "BertConfig", 12, 768, 12, ("fp16", "bf16")),
    "bert-large": Shape("BERT-large", "BertConfig", 24, 1024, 16),
    "xlm-r-large": Shape("XLM-R-large", "XLMRobertaConfig", 24, 1024, 16, ("fp16", "bf16")),
}


@dataclass(frozen=True, slots=True)
class Texts:
    """What is embedded: queries, both, and texts of 512 tokens and more."""

    short: list[str]
    mixed: list[str]
    long: list[str]

    def of(self, workload_name: str) -> list[str]:
        """Return a workload by name."""
        found: list[str] = getattr(self, workload_name)
        return found


def load_texts(data: Path | None) -> Texts:
    """Return the texts of a data folder, or generated ones."""
    if data is None:
        queries = list(itertools.islice(workload.queries(None), 2000))
        documents = list(itertools.islice(workload.documents(None), 700))
    else:
        found = json.loads((data / "texts.json").read_text(encoding="utf-8"))
        queries, documents = found["queries"], found["documents"]
    joined = " ".join(documents)
    pieces = [joined[i : i + _LONG_CHARS] for i in range(0, len(joined), _LONG_CHARS)]
    long = [piece for piece in pieces if len(piece) == _LONG_CHARS]
    return Texts(queries * 2, queries[:700] + documents, (long * 8)[:512])


def build(name: str, root: Path, data: Path | None) -> Path:
    """Save a model as Sentence Transformers would have it, and return its folder."""
    import torch
    import transformers

    shape, folder = SHAPES[name], root / name
    (folder / "1_Pooling").mkdir(parents=True)
    words = _tokenizer(data)
    (folder / "tokenizer.json").write_text(words, encoding="utf-8")
    _write(folder / "tokenizer_config.json", _TOKENIZER_CONFIG)
    torch.manual_seed(SEED)
    sizes: dict[str, Any] = {
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": 4 * shape.hidden,
        "vocab_size": 30522,
        "pad_token_id": 0,
    }
    if shape.config == "XLMRobertaConfig":
        sizes |= {"type_vocab_size": 1, "max_position_embeddings": LONG_TOKENS + 2}
    config = getattr(transformers, shape.config)(**sizes)
    trunk = getattr(transformers, shape.config.replace("Config", "Model"))
    trunk(config, add_pooling_layer=False).save_pretrained(folder)
    _write(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": shape.hidden, "pooling_mode_mean_tokens": True},
    )
    modules = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]
    _write(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (kind, path) in enumerate(modules)
        ],
    )
    limit = {"max_seq_length": LONG_TOKENS, "do_lower_case": False}
    _write(folder / "sentence_bert_config.json", limit)
    return folder


def _tokenizer(data: Path | None) -> str:
    if data is not None:
        return (data / "tokenizer.json").read_text(encoding="utf-8")
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from tokenizers.trainers import WordPieceTrainer

    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = WordPieceTrainer(vocab_size=8000, special_tokens=special, show_progress=False)
    made.train_from_iterator(itertools.islice(workload.documents(None), 500), trainer)
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    text: str = made.to_str()
    return text


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
