"""Tokenizers of every layout as one tokenizer.json, against AutoTokenizer and SentencePiece."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
from sentence_transformers import SentenceTransformer
from transformers import (
    AlbertConfig,
    AutoTokenizer,
    BertConfig,
    CamembertConfig,
    DebertaV2Config,
    PretrainedConfig,
    RobertaConfig,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from poolc.compiler.parity_texts import parity_pairs, parity_texts
from poolc.compiler.st_files import SentenceTransformer as StFiles
from poolc.compiler.st_files import read
from poolc.compiler.tokenizer import load_tokenizer, tokenizer_json
from poolc.errors import TokenizerError
from poolc.runtime.engine import Engine
from poolc.runtime.request import Item
from poolc.runtime.tokenize import Limits, TextTokenizer
from tests.compiler.conftest import CompileHere
from tests.compiler.folders import edit_json, encoder, roberta
from tests.models import (
    CORPUS,
    HIDDEN,
    MAX_LENGTH,
    byte_bpe,
    save_model,
    wordpiece,
    write_json,
    write_modules,
    write_pooling,
)

PIECES = 140
ITEMS: list[Item] = [*parity_texts(MAX_LENGTH), *parity_pairs(MAX_LENGTH)]


def unigram(path: Path, **options: Any) -> None:
    """Train a SentencePiece model into ``path``."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 4),
        model_prefix=str(path.with_suffix("")),
        vocab_size=PIECES,
        model_type="unigram",
        character_coverage=1.0,
        minloglevel=2,
        **options,
    )
    path.with_suffix(".vocab").unlink()


def xlm_roberta(folder: Path) -> PretrainedConfig:
    unigram(folder / "sentencepiece.bpe.model")
    return XLMRobertaConfig(bos_token_id=0, pad_token_id=1, eos_token_id=2)


def camembert(folder: Path) -> PretrainedConfig:
    unigram(folder / "sentencepiece.bpe.model")
    return CamembertConfig(bos_token_id=5, pad_token_id=1, eos_token_id=6)


def albert(folder: Path) -> PretrainedConfig:
    ids = {"pad_id": 0, "unk_id": 1, "bos_id": -1, "eos_id": -1}
    unigram(folder / "spiece.model", user_defined_symbols="[CLS],[SEP],[MASK]", **ids)
    return AlbertConfig()


def deberta(folder: Path) -> PretrainedConfig:
    ids = {"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3}
    pieces = {"pad_piece": "[PAD]", "bos_piece": "[CLS]", "eos_piece": "[SEP]"}
    unigram(folder / "spm.model", unk_piece="[UNK]", **ids, **pieces)
    return DebertaV2Config()


def bert_vocabulary(folder: Path) -> PretrainedConfig:
    vocabulary = wordpiece(folder).get_vocab()
    for path in folder.iterdir():
        path.unlink()
    words = sorted(vocabulary, key=lambda word: int(vocabulary[word]))
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    return BertConfig()


def bert_cased(folder: Path) -> PretrainedConfig:
    config = bert_vocabulary(folder)
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": False}
    write_json(folder / "tokenizer_config.json", settings)
    return config


def roberta_merges(folder: Path) -> PretrainedConfig:
    model = json.loads(byte_bpe(folder).backend_tokenizer.to_str())["model"]
    for path in folder.iterdir():
        path.unlink()
    write_json(folder / "vocab.json", model["vocab"])
    merges = [" ".join(merge) for merge in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    return RobertaConfig(bos_token_id=0, pad_token_id=1, eos_token_id=2)


SLOW_LAYOUTS = [
    *(xlm_roberta, camembert, albert, deberta, bert_vocabulary, bert_cased, roberta_merges)
]


def runtime_tokenizer(folder: Path, st: StFiles | None = None) -> TextTokenizer:
    """What the runtime makes of the file that the compiler writes."""
    text = tokenizer_json(load_tokenizer(folder, st, trust_remote_code=False))
    path = folder.with_name("artifact.json")
    path.write_text(text, encoding="utf-8")
    return TextTokenizer(path, Limits(MAX_LENGTH, 10_000, has_type_ids=True))


def assert_same_ids(ours: TextTokenizer, theirs: Any, items: list[Item] | None = None) -> None:
    chosen = ITEMS if items is None else items
    for item, sequence in zip(chosen, ours.encode(chosen, truncate=True), strict=True):
        texts = item if isinstance(item, tuple) else (item,)
        expected = theirs(*texts, truncation=True, max_length=MAX_LENGTH)
        assert sequence.ids.tolist() == expected["input_ids"], item
        if "token_type_ids" in expected:
            types = np.zeros_like(sequence.ids) if sequence.type_ids is None else sequence.type_ids
            assert types.tolist() == expected["token_type_ids"], item


@pytest.mark.parametrize("layout", SLOW_LAYOUTS)
def test_convert_slow_layouts(layout: Callable[[Path], PretrainedConfig], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    layout(folder).save_pretrained(folder)
    assert not (folder / "tokenizer.json").exists()
    assert_same_ids(runtime_tokenizer(folder), AutoTokenizer.from_pretrained(folder))


def test_convert_keeps_sentencepieces_own_pieces(tmp_path: Path) -> None:
    """Against the library that trained the model: XLM-R's ids are its pieces' plus one."""
    folder = tmp_path / "model"
    folder.mkdir()
    xlm_roberta(folder).save_pretrained(folder)
    processor = sentencepiece.SentencePieceProcessor(
        model_file=str(folder / "sentencepiece.bpe.model")
    )
    ours = runtime_tokenizer(folder)
    for text in CORPUS:
        (sequence,) = ours.encode([text], truncate=True)
        pieces = [piece + 1 for piece in processor.encode(text)]
        assert sequence.ids.tolist() == [0, *pieces[: MAX_LENGTH - 2], 2]


def test_compile_sentencepiece_model(tmp_path: Path, compile_here: CompileHere) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    config = xlm_roberta(folder)
    config.update({"vocab_size": PIECES + 2, "hidden_size": HIDDEN, "num_hidden_layers": 1})
    config.update({"num_attention_heads": 4, "intermediate_size": 64, "type_vocab_size": 1})
    config.update({"max_position_embeddings": MAX_LENGTH + 2})
    save_model(XLMRobertaModel(config), folder)
    engine = Engine(compile_here(folder))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for text in CORPUS:
        assert engine.tokenize(text) == tokenizer(text)["input_ids"]
    assert (engine.spec.max_length, engine.spec.pad_token_id) == (MAX_LENGTH, 1)


@pytest.mark.parametrize("family", [encoder, roberta])
def test_lower_case_is_sentence_transformers(family: Any, tmp_path: Path) -> None:
    """do_lower_case of a byte-level BPE, and of a tokenizer that lower-cases by itself."""
    folder = family(tmp_path / "model")
    write_modules(folder, ("Transformer", ""), ("Pooling", "1_Pooling"))
    write_pooling(folder, "mean_tokens")
    settings = {"max_seq_length": MAX_LENGTH, "do_lower_case": True}
    write_json(folder / "sentence_roberta_config.json", settings)
    ours = runtime_tokenizer(folder, read(folder))
    library = SentenceTransformer(str(folder), device="cpu").tokenizer
    texts: list[Item] = [
        "The QUICK Brown FOX",
        "ÉCOLE İstanbul STRASSE ΣΊΣΥΦΟΣ",
        "</s> <MASK> [cls]",
    ]
    assert_same_ids(ours, library, [*texts, *parity_texts(MAX_LENGTH)])
    plain = runtime_tokenizer(folder)
    assert family is encoder or len(plain.encode(texts)[0]) > len(ours.encode(texts)[0])


def test_tokenizer_json_has_neither_padding_nor_truncation(tmp_path: Path) -> None:
    folder = encoder(tmp_path / "model")
    edit_json(
        folder / "tokenizer.json",
        truncation={"max_length": 8, "stride": 0, "strategy": "LongestFirst", "direction": "Right"},
        padding={
            "strategy": {"Fixed": 16},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "[PAD]",
        },
    )
    written = json.loads(tokenizer_json(load_tokenizer(folder, None, trust_remote_code=False)))
    assert (written["truncation"], written["padding"]) == (None, None)


@pytest.mark.parametrize("kept", [(), ("tokenizer_config.json",)])
def test_no_tokenizer(kept: tuple[str, ...], tmp_path: Path) -> None:
    folder = encoder(tmp_path / "model")
    for path in folder.glob("tok*"):
        if path.name not in kept:
            path.unlink()
    with pytest.raises(TokenizerError) as caught:
        load_tokenizer(folder, None, trust_remote_code=False)
    assert str(caught.value) == (
        "model holds no tokenizer (tokenizer.json, vocab.txt, tokenizer.model, ...): "
        "save it into the folder, or name another with --tokenizer"
    )


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", '{"model": {"type": "Unknown"}}'])
def test_malformed_tokenizer(content: str, tmp_path: Path) -> None:
    folder = encoder(tmp_path / "model")
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(TokenizerError, match="the tokenizer cannot be loaded: ") as caught:
        load_tokenizer(folder, None, trust_remote_code=False)
    assert "\n" not in str(caught.value)


def test_python_only_tokenizer(tmp_path: Path) -> None:
    folder = encoder(tmp_path / "model")
    for path in folder.glob("tok*"):
        path.unlink()
    (folder / "vocab.txt").write_text("[PAD]\n")
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "CanineTokenizer"})
    with pytest.raises(TokenizerError, match="CanineTokenizer runs in Python only; poolc needs"):
        load_tokenizer(folder, None, trust_remote_code=False)
