"""The families of the matrix: one configuration and tokenizer each, hidden size 32, two layers.

Windows, buckets and offsets are set so small that texts of the matrix go beyond them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers

from tests.matrix.words import LIMIT, train, train_decoder
from tests.models import HIDDEN

_SIZES = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
_WINDOW = 8  # tokens that sliding and local attention reach


@dataclass(frozen=True, slots=True)
class Family:
    """``config`` saves a tokenizer into a folder and returns the configuration for it.

    ``backbone`` is the class of transformers that checkpoints of the family are saved from. T5 does
    not scale its attention: with weights as large as the others' its own numbers in fp32 are 5e-6
    from those in fp64, half of the bound.
    """

    name: str
    title: str
    backbone: str
    config: Callable[[Path], Any]
    decoder: bool = False
    scale: float = 0.3  # of the random weights


def _encoder(
    config: str, tokenizer: str, *, positions: int = LIMIT, **settings: Any
) -> Callable[[Path], Any]:
    def build(folder: Path) -> Any:
        words = train(folder, tokenizer)
        sizes = {**_SIZES, "max_position_embeddings": positions, **_ids(words), **settings}
        return getattr(transformers, config)(
            vocab_size=len(words), **{k: v for k, v in sizes.items() if v is not None}
        )

    return build


def _decoder(
    config: str, tokenizer: str, *, bos: bool = False, eos: bool = True, **settings: Any
) -> Callable[[Path], Any]:
    def build(folder: Path) -> Any:
        words = train_decoder(folder, tokenizer, bos=bos, eos=eos)
        sizes = {
            **_SIZES,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "max_position_embeddings": LIMIT,
        }
        return getattr(transformers, config)(
            vocab_size=len(words), **{**sizes, **_ids(words), **settings}
        )

    return build


def _ids(words: Any) -> dict[str, int]:
    names = ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")
    ids = {name: getattr(words, name) for name in names}
    return {name: value for name, value in ids.items() if value is not None}


def _distilbert(folder: Path) -> Any:
    words = train(folder, "BertTokenizer")
    return transformers.DistilBertConfig(
        vocab_size=len(words),
        dim=HIDDEN,
        n_layers=2,
        n_heads=4,
        hidden_dim=64,
        max_position_embeddings=LIMIT,
    )


def _t5(config: str) -> Callable[[Path], Any]:
    def build(folder: Path) -> Any:
        words = train(folder, "T5Tokenizer")
        return getattr(transformers, config)(
            vocab_size=len(words),
            d_model=HIDDEN,
            d_kv=8,
            d_ff=64,
            num_layers=2,
            num_heads=4,
            # Small, so that distances of these texts fall into the shared buckets.
            relative_attention_num_buckets=8,
            relative_attention_max_distance=16,
            feed_forward_proj="relu" if config == "T5Config" else "gated-gelu",
            pad_token_id=0,
            eos_token_id=1,
            decoder_start_token_id=0,
        )

    return build


def _gpt2(folder: Path) -> Any:
    words = train_decoder(folder, "GPT2Tokenizer", bos=False, eos=False)
    return transformers.GPT2Config(
        vocab_size=len(words),
        n_embd=HIDDEN,
        n_layer=2,
        n_head=4,
        n_positions=LIMIT,
        pad_token_id=words.pad_token_id,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
    )


_ALTERNATING = ["sliding_attention", "full_attention"]
_ROBERTA: dict[str, Any] = {"positions": LIMIT + 2, "type_vocab_size": 1}
_DEBERTA: dict[str, Any] = {
    "relative_attention": True,
    "position_buckets": 8,
    "max_relative_positions": -1,
    "pos_att_type": ["p2c", "c2p"],
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "position_biased_input": False,
    "type_vocab_size": 0,
}

_ENCODERS = (
    Family("bert", "BERT", "BertModel", _encoder("BertConfig", "BertTokenizer")),
    Family(
        "roberta",
        "RoBERTa",
        "RobertaModel",
        _encoder("RobertaConfig", "RobertaTokenizer", **_ROBERTA),
    ),
    Family(
        "xlm-roberta",
        "XLM-RoBERTa",
        "XLMRobertaModel",
        _encoder("XLMRobertaConfig", "XLMRobertaTokenizer", **_ROBERTA),
    ),
    Family(
        "camembert",
        "CamemBERT",
        "CamembertModel",
        _encoder("CamembertConfig", "CamembertTokenizer", **_ROBERTA),
    ),
    Family("distilbert", "DistilBERT", "DistilBertModel", _distilbert),
    Family(
        "mpnet",
        "MPNet",
        "MPNetModel",
        # Positions start behind the padding token's id, which is 3 here.
        _encoder("MPNetConfig", "MPNetTokenizer", positions=LIMIT + 4),
    ),
    Family(
        "electra",
        "ELECTRA",
        "ElectraModel",
        _encoder("ElectraConfig", "BertTokenizer", embedding_size=16),
    ),
    Family(
        "albert",
        "ALBERT",
        "AlbertModel",
        _encoder("AlbertConfig", "AlbertTokenizer", embedding_size=16),
    ),
    Family(
        "deberta-v2",
        "DeBERTa-v2 / v3",
        "DebertaV2Model",
        _encoder("DebertaV2Config", "DebertaV2Tokenizer", **_DEBERTA),
    ),
    Family(
        "modernbert",
        "ModernBERT",
        "ModernBertModel",
        _encoder(
            "ModernBertConfig",
            "RobertaTokenizer",
            local_attention=_WINDOW,
            layer_types=_ALTERNATING,
        ),
    ),
    Family(
        "nomic-bert",
        "NomicBERT",
        "NomicBertModel",
        _encoder("NomicBertConfig", "BertTokenizer"),
    ),
    Family("gte", "GTE (new-impl)", "GteModel", _encoder("GteConfig", "XLMRobertaTokenizer")),
    Family(
        "jina-v3",
        "Jina v3",
        "JinaEmbeddingsV3Model",
        _encoder("JinaEmbeddingsV3Config", "XLMRobertaTokenizer", type_vocab_size=1),
    ),
    Family(
        "eurobert",
        "EuroBERT",
        "EuroBertModel",
        _encoder("EuroBertConfig", "RobertaTokenizer", num_key_value_heads=2),
    ),
    Family("t5", "T5 encoder", "T5EncoderModel", _t5("T5Config"), scale=0.1),
    Family("mt5", "mT5 encoder", "MT5EncoderModel", _t5("MT5Config"), scale=0.1),
)

_DECODERS = (
    Family(
        "qwen2",
        "Qwen2",
        "Qwen2ForCausalLM",
        _decoder(
            "Qwen2Config",
            "Qwen2Tokenizer",
            use_sliding_window=True,
            sliding_window=_WINDOW,
            max_window_layers=1,
        ),
        decoder=True,
    ),
    Family(
        "qwen3",
        "Qwen3",
        "Qwen3ForCausalLM",
        _decoder("Qwen3Config", "Qwen2Tokenizer"),
        decoder=True,
    ),
    Family(
        "llama",
        "Llama",
        "LlamaModel",
        _decoder("LlamaConfig", "LlamaTokenizer", bos=True),
        decoder=True,
    ),
    Family(
        "mistral",
        "Mistral",
        "MistralModel",
        _decoder("MistralConfig", "LlamaTokenizer", bos=True, sliding_window=_WINDOW),
        decoder=True,
    ),
    Family(
        "gemma2",
        "Gemma 2",
        "Gemma2Model",
        _decoder("Gemma2Config", "GemmaTokenizer", bos=True, sliding_window=_WINDOW),
        decoder=True,
    ),
    Family(
        "gemma3",
        "Gemma 3 (EmbeddingGemma)",
        "Gemma3TextModel",
        _decoder(
            "Gemma3TextConfig",
            "GemmaTokenizer",
            bos=True,
            use_bidirectional_attention=True,
            sliding_window=_WINDOW,
            layer_types=_ALTERNATING,
        ),
    ),
    Family(
        "phi3",
        "Phi-3",
        "Phi3ForCausalLM",
        _decoder("Phi3Config", "LlamaTokenizer", bos=True, sliding_window=_WINDOW),
        decoder=True,
    ),
    Family("gpt2", "GPT-2", "GPT2Model", _gpt2, decoder=True),
    Family(
        "qwen2-bidirectional",
        "Qwen2, is_causal false",
        "Qwen2ForCausalLM",
        _decoder("Qwen2Config", "Qwen2Tokenizer", is_causal=False),
    ),
)

FAMILIES: Mapping[str, Family] = {family.name: family for family in (*_ENCODERS, *_DECODERS)}
