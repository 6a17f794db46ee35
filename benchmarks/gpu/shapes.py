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
from benchmarks.models import BERT_TOKENIZER, SEED, flops

LONG_TOKENS = 512
_LONG_CHARS = 3500  # enough for 512 tokens of prose


@dataclass(frozen=True, slots=True)
class Shape:
    """A configuration of transformers, and what the model is timed in."""

    title: str
    config: str  # class of transformers
    sizes: dict[str, Any]
    precisions: tuple[str, ...] = ("fp16",)
    pooling: str = "mean_tokens"

    @property
    def settings(self) -> Any:
        """The configuration itself."""
        import transformers

        return getattr(transformers, self.config)(**_COMMON, **self.sizes)

    def flops(self, lengths: list[int]) -> float:
        """Return the floating-point operations of one pass, products and attention only."""
        return flops(self.settings.to_dict(), lengths)


# One tokenizer for all of them: nothing is downloaded, and texts have the same tokens everywhere.
_COMMON: dict[str, Any] = {"vocab_size": 30522, "pad_token_id": 0}
_LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
_XLM_R = {"type_vocab_size": 1, "max_position_embeddings": LONG_TOKENS + 2, "layer_norm_eps": 1e-5}
_QWEN3 = {
    "bos_token_id": 101,
    "eos_token_id": 102,
    "hidden_size": 1024,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 3072,
    "tie_word_embeddings": True,
}
_BOTH = ("fp16", "bf16")

SHAPES = {
    "minilm": Shape(
        "MiniLM-L6",
        "BertConfig",
        {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536},
    ),
    "bert-base": Shape("BERT-base", "BertConfig", {}, _BOTH),
    "bert-large": Shape("BERT-large", "BertConfig", _LARGE),
    "xlm-r-large": Shape("XLM-R-large", "XLMRobertaConfig", {**_LARGE, **_XLM_R}, _BOTH),
    "modernbert-base": Shape(
        "ModernBERT-base",
        "ModernBertConfig",
        {"cls_token_id": 101, "bos_token_id": 101, "sep_token_id": 102, "eos_token_id": 102},
    ),
    "qwen3-0.6b": Shape("Qwen3-0.6B", "Qwen3Config", _QWEN3, pooling="lasttoken"),
}
# What there is time for in one run; the others have to be named.
USUAL = ("minilm", "bert-base", "bert-large", "xlm-r-large")


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
    _write(folder / "tokenizer_config.json", _tokenizer_config(shape))
    torch.manual_seed(SEED)
    trunk = transformers.AutoModel.from_config(shape.settings, dtype=torch.float32)
    trunk.eval().save_pretrained(folder)
    _write(
        folder / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": shape.settings.hidden_size,
            f"pooling_mode_{shape.pooling}": True,
            "pooling_mode_mean_tokens": shape.pooling == "mean_tokens",
        },
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


def _tokenizer_config(shape: Shape) -> dict[str, Any]:
    found = {**BERT_TOKENIZER, "model_max_length": LONG_TOKENS}
    if shape.config in ("BertConfig", "XLMRobertaConfig"):
        return found
    fast = {"tokenizer_class": "PreTrainedTokenizerFast"}  # these have no types of tokens
    return {**found, **fast, "model_input_names": ["input_ids", "attention_mask"]}


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
