"""Small models as a user would have them on disk: seeded random weights, tokenizers trained here.

torch and transformers are imported inside the builders: most tests never build anything.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# What the tokenizers know: enough for words, pieces and a few other scripts.
CORPUS = [
    "the quick brown fox jumps over the lazy dog while the cat sleeps in the sun",
    "a river runs through the old town and under seven bridges of stone",
    "how do I reset my password if I no longer have access to my email",
    "bread needs flour water salt and yeast and a very hot oven",
    "the committee approved the budget after a long debate about taxes",
    "negative neutral positive good bad excellent terrible fine awful great",
    "Réserver une table à Zürich, s'il vous plaît: naïve café Ærøskøbing",
    "Москва столица России; 東京の天気は晴れ; 0123456789 -+*/=.,!?",
    "Paris is the capital of France and Brasília the capital of Brazil",
    "an account of the market and its share",
]
MAX_LENGTH = 64
HIDDEN = 32
TOKEN_DIM = 16  # of multi-vector models
QUERY_LENGTH = 12
DOCUMENT_LENGTH = 40
_WHOLE_WORD = 7  # letters: longer words are two pieces
_WEIGHT_SCALE = 0.3  # larger than usual, so that texts differ visibly


def wordpiece(folder: Path) -> PreTrainedTokenizerFast:
    """Make a lower-casing WordPiece tokenizer of the corpus' words and save it into ``folder``.

    Its vocabulary is written down, not trained: the trainer breaks ties by chance, so that each
    run would compute other numbers, and a test near its bound fail now and then.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    normalizer = normalizers.BertNormalizer(lowercase=True)
    splitter = pre_tokenizers.BertPreTokenizer()
    found = (splitter.pre_tokenize_str(normalizer.normalize_str(text)) for text in CORPUS)
    words = sorted({word for text in found for word, _ in text})
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = sorted(set("".join(words)))
    pieces = [*special, *letters, *(f"##{letter}" for letter in letters)]
    for word in words:
        if len(word) <= _WHOLE_WORD:
            pieces.append(word)
        else:
            middle = len(word) // 2
            pieces += [word[:middle], f"##{word[middle:]}"]
    vocabulary = {piece: token for token, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=MAX_LENGTH,
        # Given here, not set afterwards: only what the constructor got is saved.
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    fast.save_pretrained(folder)
    return fast


def byte_bpe(folder: Path) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer with RoBERTa's special tokens; save it into ``folder``."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from tokenizers.trainers import BpeTrainer
    from transformers import PreTrainedTokenizerFast

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        CORPUS,
        BpeTrainer(
            vocab_size=500,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        mask_token="<mask>",
        model_max_length=MAX_LENGTH,
        model_input_names=["input_ids", "attention_mask"],
    )
    fast.save_pretrained(folder)
    return fast


def save_model(model: Any, folder: Path, seed: int = 0, scale: float = _WEIGHT_SCALE) -> None:
    """Give ``model`` seeded weights and save it into ``folder``."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator) * scale
            # Norm gains stay near 1, or every vector would point the same way.
            is_gain = "norm" in name.lower() and name.endswith("weight")
            parameter.copy_(1 + 0.1 * noise if is_gain else noise)
    model.save_pretrained(folder)


def bert_config(vocab_size: int, **changes: Any) -> Any:
    """Return the config of a two-layer BERT."""
    from transformers import BertConfig

    sizes = {
        "vocab_size": vocab_size,
        "hidden_size": HIDDEN,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": MAX_LENGTH,
    }
    return BertConfig(**{**sizes, **changes})


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")


def write_modules(folder: Path, *kinds: tuple[str, str]) -> None:
    """Write modules.json: (class name, folder) in order."""
    entries = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(kinds)
    ]
    write_json(folder / "modules.json", entries)


def write_pooling(folder: Path, *modes: str, dim: int = HIDDEN) -> None:
    """Write the Pooling module's configuration as Sentence Transformers 2 to 5 do."""
    flags = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")
    config: dict[str, Any] = {"word_embedding_dimension": dim}
    config |= {f"pooling_mode_{flag}": flag in modes for flag in flags}
    config |= {f"pooling_mode_{mode}": True for mode in modes}
    write_json(folder / "1_Pooling" / "config.json", config)


def tiny_embedder(folder: Path) -> None:
    """BERT, mean pooling, normalised, with prompts and declared Matryoshka sizes."""
    from transformers import BertModel

    config = bert_config(len(wordpiece(folder)), matryoshka_dimensions=[8, 16])
    save_model(BertModel(config), folder)
    write_modules(
        folder, ("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")
    )
    write_pooling(folder, "mean_tokens")
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": MAX_LENGTH})
    write_json(
        folder / "config_sentence_transformers.json",
        {"prompts": {"query": "query: ", "document": "passage: "}, "similarity_fn_name": "cosine"},
    )


def tiny_classifier(folder: Path) -> None:
    """BERT with three labels."""
    from transformers import BertForSequenceClassification

    labels = {0: "negative", 1: "neutral", 2: "positive"}
    config = bert_config(
        len(wordpiece(folder)), id2label=labels, label2id={v: k for k, v in labels.items()}
    )
    save_model(BertForSequenceClassification(config), folder, seed=1)


def tiny_cross_encoder(folder: Path) -> None:
    """RoBERTa with one label, as a Sentence Transformers cross-encoder saves it."""
    from transformers import RobertaConfig, RobertaForSequenceClassification

    config = RobertaConfig(
        vocab_size=len(byte_bpe(folder)),
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=MAX_LENGTH + 2,
        type_vocab_size=1,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        num_labels=1,
        sentence_transformers={"activation_fn": "torch.nn.modules.activation.Sigmoid"},
    )
    save_model(RobertaForSequenceClassification(config), folder, seed=2)


def tiny_distilbert(folder: Path) -> None:
    """DistilBERT without any pooling configuration."""
    from transformers import DistilBertConfig, DistilBertModel

    tokenizer = wordpiece(folder)
    config = DistilBertConfig(
        vocab_size=len(tokenizer),
        dim=HIDDEN,
        n_layers=2,
        n_heads=4,
        hidden_dim=64,
        max_position_embeddings=MAX_LENGTH,
    )
    save_model(DistilBertModel(config), folder, seed=3)


def write_typed_modules(folder: Path, *types: tuple[str, str]) -> None:
    """Write modules.json: (dotted class, folder) in order."""
    entries = [
        {"idx": i, "name": str(i), "path": path, "type": kind}
        for i, (kind, path) in enumerate(types)
    ]
    write_json(folder / "modules.json", entries)


def tiny_splade(folder: Path) -> None:
    """BERT with its language model head, as Sentence Transformers 5 saves SPLADE."""
    from transformers import BertForMaskedLM

    save_model(BertForMaskedLM(bert_config(len(wordpiece(folder)))), folder, seed=4)
    package = "sentence_transformers.sparse_encoder.models"
    write_typed_modules(
        folder, (f"{package}.MLMTransformer", ""), (f"{package}.SpladePooling", "1_SpladePooling")
    )
    write_json(folder / "1_SpladePooling" / "config.json", {"pooling_strategy": "max"})
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": MAX_LENGTH})
    prompts = {"query": "query: ", "document": "passage: "}
    settings = {"model_type": "SparseEncoder", "prompts": prompts}
    write_json(folder / "config_sentence_transformers.json", settings)


def tiny_colbert(folder: Path) -> None:
    """BERT and a projection, as PyLate saves it: markers that its tokenizer knows."""
    import string

    import torch
    from safetensors.torch import save_file
    from transformers import BertModel

    tokenizer = wordpiece(folder)
    tokenizer.add_tokens(["[Q] ", "[D] "])
    tokenizer.save_pretrained(folder)
    config = bert_config(len(tokenizer), matryoshka_dimensions=[8])
    save_model(BertModel(config), folder, seed=5)
    generator = torch.Generator().manual_seed(5)
    (folder / "1_Dense").mkdir()
    weight = torch.randn((TOKEN_DIM, HIDDEN), generator=generator)
    save_file({"linear.weight": weight}, folder / "1_Dense" / "model.safetensors")
    dense: dict[str, Any] = {"in_features": HIDDEN, "out_features": TOKEN_DIM, "bias": False}
    dense["activation_function"] = "torch.nn.modules.linear.Identity"
    write_json(folder / "1_Dense" / "config.json", dense)
    write_typed_modules(
        folder,
        ("sentence_transformers.models.Transformer", ""),
        ("pylate.models.Dense.Dense", "1_Dense"),
    )
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": DOCUMENT_LENGTH - 1})
    settings = {
        "model_type": "ColBERT",
        "prompts": {},
        "similarity_fn_name": "MaxSim",
        "query_prefix": "[Q] ",
        "document_prefix": "[D] ",
        "query_length": QUERY_LENGTH,
        "document_length": DOCUMENT_LENGTH,
        "attend_to_expansion_tokens": False,
        "skiplist_words": list(string.punctuation),
    }
    write_json(folder / "config_sentence_transformers.json", settings)


def tiny_bge_m3(folder: Path) -> None:
    """XLM-RoBERTa with BGE-M3's two heads as pickles beside its weights."""
    import torch
    from transformers import XLMRobertaModel

    config = xlm_roberta_config(len(byte_bpe(folder)))
    save_model(XLMRobertaModel(config), folder, seed=6)
    generator = torch.Generator().manual_seed(6)
    for name, size in (("colbert", TOKEN_DIM), ("sparse", 1)):
        weight = torch.randn((size, HIDDEN), generator=generator)
        head = {"weight": weight, "bias": torch.full((size,), 0.1)}
        torch.save(head, folder / f"{name}_linear.pt")


def xlm_roberta_config(vocab_size: int, **changes: Any) -> Any:
    """Return the config of a two-layer XLM-RoBERTa over ``byte_bpe``."""
    from transformers import XLMRobertaConfig

    sizes = {
        "vocab_size": vocab_size,
        "hidden_size": HIDDEN,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": MAX_LENGTH + 2,
        "type_vocab_size": 1,
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
    }
    return XLMRobertaConfig(**{**sizes, **changes})


def tiny_qwen2_classifier(folder: Path) -> None:
    """Qwen2 with two labels, of which the last token decides."""
    from transformers import Qwen2Config, Qwen2ForSequenceClassification

    config = Qwen2Config(
        vocab_size=len(wordpiece(folder)),
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        max_position_embeddings=MAX_LENGTH,
        pad_token_id=0,
        id2label={0: "Default", 1: "Spoiled"},
        label2id={"Default": 0, "Spoiled": 1},
    )
    save_model(Qwen2ForSequenceClassification(config), folder, seed=12, scale=0.1)


def tiny_reranker(folder: Path) -> None:
    """XLM-RoBERTa with one label and no word of an activation, like bge-reranker-v2-m3."""
    from transformers import XLMRobertaForSequenceClassification

    config = xlm_roberta_config(len(byte_bpe(folder)), num_labels=1)
    save_model(XLMRobertaForSequenceClassification(config), folder, seed=13)


def tiny_internlm2_reward(folder: Path) -> None:
    """InternLM2 with a reward a token, in Python code of its own."""
    from tests.compiler.decoders import remote_reward

    remote_reward(folder, "InternLM2ForRewardModel")


def tiny_jina_v3(folder: Path) -> None:
    """Jina v3 in its authors' layout: five adapters, vectors of 64, 32 and 16."""
    from tests.compiler.author_layouts import jina

    jina(folder, hidden_size=64, matryoshka_dimensions=[16, 32, 64])


RERANKER_LENGTH = 320


def tiny_lm_reranker(folder: Path) -> None:
    """A Qwen3 that answers good or bad, as the original Qwen3-Reranker answers yes or no."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokenizer = wordpiece(folder)
    tokenizer.model_max_length = RERANKER_LENGTH
    tokenizer.save_pretrained(folder)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        intermediate_size=64,
        max_position_embeddings=RERANKER_LENGTH,
        pad_token_id=0,
        classifier_from_token=["bad", "good"],
        is_original_qwen3_reranker=True,
    )
    save_model(Qwen3ForCausalLM(config), folder, seed=4)


# The seeds of taggers are those that give every label to some token.
ENTITIES = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


def _entity_labels() -> dict[str, Any]:
    return {
        "id2label": dict(enumerate(ENTITIES)),
        "label2id": {label: index for index, label in enumerate(ENTITIES)},
    }


def tiny_tagger(folder: Path) -> None:
    """BERT that labels tokens, over WordPiece."""
    from transformers import BertForTokenClassification

    config = bert_config(len(wordpiece(folder)), **_entity_labels())
    # A seed whose model tells tokens from their neighbours: many give a text one label throughout.
    save_model(BertForTokenClassification(config), folder, seed=24)


def tiny_byte_tagger(folder: Path) -> None:
    """XLM-RoBERTa that labels tokens, over byte-level BPE."""
    from transformers import XLMRobertaForTokenClassification

    config = xlm_roberta_config(len(byte_bpe(folder)), **_entity_labels())
    save_model(XLMRobertaForTokenClassification(config), folder, seed=45)


BUILDERS: dict[str, Callable[[Path], None]] = {
    "tiny_embedder": tiny_embedder,
    "tiny_classifier": tiny_classifier,
    "tiny_cross_encoder": tiny_cross_encoder,
    "tiny_distilbert": tiny_distilbert,
    "tiny_splade": tiny_splade,
    "tiny_colbert": tiny_colbert,
    "tiny_bge_m3": tiny_bge_m3,
    "tiny_qwen2_classifier": tiny_qwen2_classifier,
    "tiny_reranker": tiny_reranker,
    "tiny_internlm2_reward": tiny_internlm2_reward,
    "tiny_jina_v3": tiny_jina_v3,
    "tiny_lm_reranker": tiny_lm_reranker,
    "tiny_tagger": tiny_tagger,
    "tiny_byte_tagger": tiny_byte_tagger,
}
