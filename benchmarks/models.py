"""The models that are measured: one trained, the others from a configuration with random weights.

Random weights of a seed cost the same time as trained ones and have an answer that is as definite;
only quality cannot be asked of them. Tokenizers are real: ``--data DIR`` has them.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.environments import home
from benchmarks.options import model_or_default

SEED = 20261126
_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "merges.txt")


@dataclass(frozen=True, slots=True)
class Model:
    """A model of the benchmark; ``large`` ones are measured on a fixed slice of tokens."""

    name: str
    title: str
    max_length: int  # tokens
    large: bool = True
    task: str = "embed"  # or "score"
    tokenizer: str = ""  # folder below DIR/tokenizers
    tokenizer_config: dict[str, Any] = field(default_factory=dict)
    config: str = ""  # class of transformers
    sizes: dict[str, Any] = field(default_factory=dict)
    pooling: str = "mean"


BERT_TOKENIZER = {
    "tokenizer_class": "BertTokenizer",
    "do_lower_case": True,
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
_MODERNBERT = {
    **BERT_TOKENIZER,
    "tokenizer_class": "PreTrainedTokenizerFast",
    "model_input_names": ["input_ids", "attention_mask"],
}
_XLM_R = {
    "tokenizer_class": "XLMRobertaTokenizer",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "cls_token": "<s>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}
_QWEN = {
    "tokenizer_class": "Qwen2Tokenizer",
    "eos_token": "<|endoftext|>",
    "pad_token": "<|endoftext|>",
    "add_prefix_space": False,
}

MODELS = (
    Model("minilm", "all-MiniLM-L6-v2", 256, large=False),
    Model(
        "bert-base", "BERT-base", 512, tokenizer="gte-small", tokenizer_config=BERT_TOKENIZER,
        config="BertConfig", sizes={"vocab_size": 30522},
    ),
    Model(
        "xlm-r-large", "XLM-R-large (the size of bge-m3)", 512, pooling="cls",
        tokenizer="xlm-roberta-base", tokenizer_config=_XLM_R, config="XLMRobertaConfig",
        sizes={
            "vocab_size": 250002, "hidden_size": 1024, "num_hidden_layers": 24,
            "num_attention_heads": 16, "intermediate_size": 4096, "type_vocab_size": 1,
            "max_position_embeddings": 514, "layer_norm_eps": 1e-5,
            "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
            "position_embedding_type": "absolute",  # vLLM reads it; transformers dropped it
        },
    ),
    Model(
        "modernbert-base", "ModernBERT-base", 512, tokenizer="modernbert-base",
        tokenizer_config=_MODERNBERT,
        config="ModernBertConfig", sizes={"vocab_size": 50368},
    ),
    Model(
        "qwen3-0.6b", "Qwen3-0.6B as an embedder", 512, pooling="lasttoken",
        tokenizer="qwen2", tokenizer_config=_QWEN, config="Qwen3Config",
        sizes={
            "vocab_size": 151936, "hidden_size": 1024, "num_hidden_layers": 28,
            "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
            "intermediate_size": 3072, "max_position_embeddings": 32768,
            "tie_word_embeddings": True, "pad_token_id": 151643, "eos_token_id": 151643,
        },
    ),
    Model(
        "cross-encoder", "BERT-base cross-encoder", 512, task="score", tokenizer="gte-small",
        tokenizer_config=BERT_TOKENIZER, config="BertConfig",
        sizes={"vocab_size": 30522, "num_labels": 1},
    ),
)  # fmt: skip
MODEL_BY_NAME = {model.name: model for model in MODELS}


def folder(model: Model, data: Path | None) -> Path:
    """Return the model's folder, built first where it has random weights."""
    if not model.config:
        return Path(model_or_default(None))
    target = home() / "models" / model.name
    if not (target / "complete").exists():
        if data is None:
            raise SystemExit(f"{model.name} needs a tokenizer: give --data DIR")
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        build(model, data / "tokenizers" / model.tokenizer, target)
        (target / "complete").write_text("", encoding="utf-8")
    return target


def build(model: Model, tokenizer: Path, target: Path) -> None:
    """Write a Sentence Transformers folder (or a cross-encoder's) with random weights."""
    import torch
    import transformers

    config = getattr(transformers, model.config)(**model.sizes)
    auto = "AutoModelForSequenceClassification" if model.task == "score" else "AutoModel"
    torch.manual_seed(SEED)
    weights = getattr(transformers, auto).from_config(config, dtype=torch.float32)
    weights.eval().save_pretrained(target)
    for name in _TOKENIZER_FILES:
        if (tokenizer / name).exists():
            shutil.copyfile(tokenizer / name, target / name)
    _write(target / "tokenizer_config.json", model.tokenizer_config, length=model.max_length)
    if model.task == "embed":
        _modules(model, config.hidden_size, target)


def _modules(model: Model, hidden_size: int, target: Path) -> None:
    names = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(names)
    ]
    for path, _ in names[1:]:
        (target / path).mkdir()
    modes = {"cls": "cls_token", "mean": "mean_tokens", "lasttoken": "lasttoken"}
    pooling = {f"pooling_mode_{key}": mode == model.pooling for mode, key in modes.items()}
    _write(target / "modules.json", modules)
    _write(target / "sentence_bert_config.json", {"max_seq_length": model.max_length})
    _write(target / "1_Pooling/config.json", {"word_embedding_dimension": hidden_size, **pooling})


def _write(path: Path, content: Any, length: int | None = None) -> None:
    if length is not None:
        content = {**content, "model_max_length": length}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def flops(config: dict[str, Any], lengths: list[int]) -> float:
    """Return the floating-point operations of the matrix products over sequences of these lengths.

    What has to be computed: of attention within a window, or to the left only, the keys that are
    seen. Embeddings, norms and activations are left out: they are not what a product's peak bounds.
    """
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    inner, heads = config["intermediate_size"], config["num_attention_heads"]
    size = config.get("head_dim") or hidden // heads
    grouped = config.get("num_key_value_heads") or heads
    gated = config["model_type"] in ("modernbert", "qwen3")
    projections = 2 * hidden * heads * size + 2 * hidden * grouped * size
    linear = layers * (projections + (3 if gated else 2) * hidden * inner)
    window = config.get("local_attention") or 0
    everywhere = layers - (config.get("layer_types") or []).count("sliding_attention")
    causal = config["model_type"] == "qwen3"
    seen = [
        everywhere * ((n + 1) / 2 if causal else n) + (layers - everywhere) * min(n, 1 + window)
        for n in lengths
    ]  # keys of a query, over all layers
    attention = 4 * heads * size
    pairs = zip(lengths, seen, strict=True)
    return float(sum(2 * linear * n + attention * n * keys for n, keys in pairs))
