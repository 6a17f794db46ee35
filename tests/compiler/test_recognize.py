"""Recognition of embedding models: what is chosen, and the recorded reason for each choice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from transformers import BloomConfig, GPT2Config, GPT2LMHeadModel

from poolc.errors import InvalidOption, UnsupportedModel
from poolc.spec import MatryoshkaSpec, PoolingType, Similarity, Task
from tests.compiler.conftest import Recognise
from tests.compiler.folders import (
    MODES,
    add_dense,
    add_modules,
    causal,
    edit_json,
    encoder,
    roberta,
    sentence_transformer,
)
from tests.models import (
    HIDDEN,
    MAX_LENGTH,
    save_model,
    wordpiece,
    write_json,
    write_modules,
    write_pooling,
)

EMBEDS = (Task.EMBED, Task.SCORE, Task.ENCODE)
ST_FILE = "config_sentence_transformers.json"
NO_LIMIT = 10**30  # how transformers writes "no limit"


def gpt2(folder: Path) -> Path:
    folder.mkdir()
    sizes = {"n_embd": HIDDEN, "n_layer": 1, "n_head": 4, "n_positions": MAX_LENGTH}
    save_model(GPT2LMHeadModel(GPT2Config(vocab_size=len(wordpiece(folder)), **sizes)), folder)
    return folder


def bloom(folder: Path) -> Path:
    """A configuration of a family without positions."""
    folder.mkdir()
    sizes = {"hidden_size": HIDDEN, "n_layer": 1, "n_head": 4}
    config = BloomConfig(vocab_size=len(wordpiece(folder)), **sizes)
    config.architectures = ["BloomModel"]
    config.save_pretrained(folder)
    return folder


# Pooling: files, then defaults.


def test_recognize_files_of_sentence_transformers(
    tiny_embedder_source: Path, recognise: Recognise
) -> None:
    known = recognise(tiny_embedder_source)
    assert known.warnings == []
    spec = known.spec
    assert (spec.architecture, spec.model_type, spec.tasks) == ("BertModel", "bert", EMBEDS)
    assert (spec.hidden_size, spec.embedding_size, spec.max_length) == (HIDDEN, HIDDEN, MAX_LENGTH)
    assert (spec.pooling, spec.normalize, spec.layers) == ((PoolingType.MEAN,), True, ())
    assert spec.inputs == ("input_ids", "attention_mask", "token_type_ids")
    assert (spec.pad_token_id, spec.vocab_size) == (0, len(known.tokenizer))
    assert spec.origins == {
        "kind": "modules.json: a Pooling module",
        "tasks": "modules.json: a Pooling module",
        "max_length": "sentence_bert_config.json: max_seq_length",
        "pooling": "1_Pooling/config.json",
        "normalize": "modules.json",
        "embedding_size": "the last head's width",
        "prompts": f"{ST_FILE}: prompts",
        "similarity": f"{ST_FILE}: similarity_fn_name",
        "matryoshka": "config.json: matryoshka_dimensions",
        "trunk": "modules.json: a Pooling module",
        # What nobody chose.
        "truncation_side": "default of transformers: right",
        "include_prompt": "default of Sentence Transformers: pooling counts prompts",
        "chunk": "default: a text that is too long is an error",
        "default_prompt_name": "default: no prompt",
    }


def test_recognize_concatenated_pooling_and_dense(tmp_path: Path, recognise: Recognise) -> None:
    folder = sentence_transformer(tmp_path / "model", "cls_token", "mean_tokens")
    add_modules(folder, ("Dense", "2_Dense"), ("Dense", "3_Dense"))
    add_dense(folder, "2_Dense", (2 * HIDDEN, 24))
    add_dense(folder, "3_Dense", (24, 12))
    spec = recognise(folder).spec
    assert (spec.pooling, spec.normalize) == ((PoolingType.CLS, PoolingType.MEAN), False)
    assert spec.embedding_size == 12
    library = SentenceTransformer(str(folder), device="cpu")
    assert spec.embedding_size == library.get_embedding_dimension()


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (((HIDDEN - 1, 8), (8, 4)), "2_Dense/config.json: in_features is 31, but pooling gives 32"),
        (((HIDDEN, 8), (9, 4)), "3_Dense/config.json: in_features is 9, but 2_Dense gives 8"),
    ],
)
def test_recognize_dense_that_does_not_fit(
    sizes: Any, message: str, tmp_path: Path, recognise: Recognise
) -> None:
    folder = sentence_transformer(tmp_path / "model")
    add_modules(folder, ("Dense", "2_Dense"), ("Dense", "3_Dense"))
    for path, size in zip(("2_Dense", "3_Dense"), sizes, strict=True):
        add_dense(folder, path, size)
    with pytest.raises(UnsupportedModel, match=message):
        recognise(folder)


@pytest.mark.parametrize(
    ("build", "changes"),
    [
        (encoder, {}),
        (roberta, {}),
        (causal, {}),
        (causal, {"is_causal": False}),
        (causal, {"is_causal": True}),
        (gpt2, {}),
    ],
)
def test_recognize_defaults_are_sentence_transformers(
    build: Any, changes: dict[str, Any], tmp_path: Path, recognise: Recognise
) -> None:
    folder = build(tmp_path / "model")
    edit_json(folder / "config.json", **changes)
    known = recognise(folder, runner="pooling")
    library = SentenceTransformer(str(folder), device="cpu")
    assert MODES[known.spec.pooling[0]] == library[1].pooling_mode
    assert [type(module).__name__ for module in library] == ["Transformer", "Pooling"]
    assert known.spec.normalize is False
    origin = "default of Sentence Transformers"
    assert known.spec.origins["pooling"] == known.spec.origins["normalize"] == origin
    (warning,) = known.warnings
    assert warning.startswith(
        f"{known.spec.architecture} configures no pooling: {known.spec.pooling[0]} of the tokens, "
        f"not normalised ({origin}); choose with --pooler-config"
    )


@pytest.mark.parametrize(
    ("build", "pooling"),
    [(encoder, "cls"), (roberta, "cls"), (causal, "last"), (gpt2, "last"), (bloom, "last")],
)
def test_recognize_defaults_of_vllm(
    build: Any, pooling: str, tmp_path: Path, recognise: Recognise
) -> None:
    known = recognise(build(tmp_path / "model"), defaults="vllm", convert="embed")
    assert known.spec.pooling == (PoolingType(pooling),)
    assert known.spec.normalize is True
    assert known.spec.origins["pooling"] == "default of vLLM (--defaults vllm)"
    assert any(f"{pooling} of the tokens" in warning for warning in known.warnings)


def test_recognize_files_beat_the_defaults_of_vllm(tmp_path: Path, recognise: Recognise) -> None:
    known = recognise(sentence_transformer(tmp_path / "model", "max_tokens"), defaults="vllm")
    assert (known.spec.pooling, known.spec.normalize) == ((PoolingType.MAX,), False)
    assert known.warnings == []


# Pooling: overrides.


@pytest.mark.parametrize("key", ["pooling_type", "seq_pooling_type"])
def test_recognize_pooler_config_beats_files(
    key: str, tiny_embedder_source: Path, recognise: Recognise
) -> None:
    spec = recognise(tiny_embedder_source, pooler_config={key: "CLS", "normalize": False}).spec
    assert (spec.pooling, spec.normalize) == ((PoolingType.CLS,), False)
    assert spec.origins["pooling"] == f"--pooler-config {key}"
    assert spec.origins["normalize"] == "--pooler-config normalize"


def test_recognize_use_activation_is_normalisation(
    tiny_embedder_source: Path, recognise: Recognise
) -> None:
    spec = recognise(tiny_embedder_source, pooler_config={"use_activation": False}).spec
    assert (spec.normalize, spec.origins["normalize"]) == (False, "--pooler-config use_activation")


def test_recognize_pooler_config_of_a_plain_folder_warns_of_nothing(
    tmp_path: Path, recognise: Recognise
) -> None:
    known = recognise(encoder(tmp_path / "model"), pooler_config={"pooling_type": "mean"})
    assert known.warnings == []
    assert known.spec.origins["pooling"] == "--pooler-config pooling_type"


def test_recognize_pooler_config_all(tiny_embedder_source: Path, recognise: Recognise) -> None:
    with pytest.raises(InvalidOption, match="ALL keeps every token, which is not an embedding"):
        recognise(tiny_embedder_source, pooler_config={"pooling_type": "ALL"})


# Runner and convert.


def test_recognize_runner_generate(tiny_embedder_source: Path, recognise: Recognise) -> None:
    assert recognise(tiny_embedder_source, runner="pooling").spec.tasks == EMBEDS
    with pytest.raises(InvalidOption, match="runner is 'generate'; poolc compiles pooling models"):
        recognise(tiny_embedder_source, runner="generate")


ONE_LABEL = {"num_labels": 1}
CLASSIFIES = (Task.CLASSIFY, Task.SCORE, Task.ENCODE)
REWARDS = (Task.REWARD, Task.ENCODE)
LABELS_TOKENS = (Task.CLASSIFY_TOKENS, Task.ENCODE)


@pytest.mark.parametrize(
    ("name", "changes", "convert", "expected"),
    [
        ("BertModel", {}, "auto", EMBEDS),
        ("BertModel", {}, "none", EMBEDS),
        ("BertModel", {}, "embed", EMBEDS),
        ("BertModel", {}, "reward", REWARDS),
        ("BertModel", {}, "classify", "BertModel has no classification head in its weights"),
        ("BertForMaskedLM", {}, "auto", EMBEDS),
        ("BertRewardModel", {}, "auto", REWARDS),
        ("BertForRewardModeling", {}, "auto", REWARDS),
        ("BertForRewardModeling", {}, "embed", EMBEDS),
        ("BertForSequenceClassification", {}, "auto", CLASSIFIES),
        ("BertForSequenceClassification", {}, "none", CLASSIFIES),
        ("BertForSequenceClassification", {}, "classify", CLASSIFIES),
        ("BertForSequenceClassification", {}, "embed", EMBEDS),
        ("BertForSequenceClassification", {}, "reward", "has 2 labels; a reward model has one"),
        ("BertForSequenceClassification", ONE_LABEL, "reward", (*CLASSIFIES, Task.REWARD)),
        ("BertForTokenClassification", {}, "auto", LABELS_TOKENS),
        ("BertForTokenClassification", {}, "classify", LABELS_TOKENS),
        ("BertForTokenClassification", {}, "embed", EMBEDS),
        ("BertForQuestionAnswering", {}, "auto", "--convert embed makes an embedding model of it"),
    ],
)
def test_recognize_convert(
    name: str, changes: Any, convert: str, expected: Any, tmp_path: Path, recognise: Recognise
) -> None:
    folder = encoder(tmp_path / "model", **changes)
    edit_json(folder / "config.json", architectures=[name])
    if isinstance(expected, str):
        with pytest.raises(UnsupportedModel, match=expected):
            recognise(folder, convert=convert)
        return
    spec = recognise(folder, convert=convert).spec
    assert spec.tasks == expected
    decided = convert not in ("auto", "none")
    assert spec.origins["tasks"] == (
        f"--convert {convert}" if decided else f"config.json: architectures {name}"
    )
    assert bool(spec.labels) is bool({Task.CLASSIFY, Task.CLASSIFY_TOKENS} & {*expected})
    assert (spec.pooling == (PoolingType.ALL,)) is (expected in (REWARDS, LABELS_TOKENS))


@pytest.mark.parametrize("build", [causal, gpt2])
def test_recognize_a_class_that_generates(build: Any, tmp_path: Path, recognise: Recognise) -> None:
    folder = build(tmp_path / "model")
    with pytest.raises(
        UnsupportedModel,
        match=r"^config\.json: architectures is \w+, a class that generates text, and there is no "
        r"modules\.json with a Pooling module: .* --convert embed or --runner pooling$",
    ):
        recognise(folder)
    for told in ({"convert": "embed"}, {"runner": "pooling"}):
        assert recognise(folder, **told).spec.tasks == EMBEDS
    add_modules(folder)
    write_pooling(folder, "lasttoken")
    assert recognise(folder).spec.tasks == EMBEDS
    write_modules(folder, ("Transformer", ""))
    with pytest.raises(UnsupportedModel, match=r"and modules\.json has no Pooling module"):
        recognise(folder)


def test_recognize_several_pooling_flags_of_one_size(tmp_path: Path, recognise: Recognise) -> None:
    folder = sentence_transformer(tmp_path / "model", "cls_token", "mean_tokens")
    add_modules(folder, ("Dense", "2_Dense"))
    add_dense(folder, "2_Dense", (HIDDEN, 8))
    with pytest.raises(
        UnsupportedModel,
        match=r"^2_Dense/config.json: in_features is 32, but 1_Pooling/config.json: "
        "pooling_mode_cls_token, pooling_mode_mean_tokens gives 64$",
    ):
        recognise(folder)
    write_pooling(folder, "cls_token", "mean_tokens", dim=HIDDEN // 2)
    with pytest.raises(UnsupportedModel, match=r"of tokens of 16 numbers .* but they have 32"):
        recognise(folder)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"transformer_task": "fill-mask"}, "transformer_task is 'fill-mask'; an embedding"),
        (
            {"modality_config": {"text": {"method": "forward", "method_output_name": "logits"}}},
            r"modality_config.text.method_output_name is \['logits'\]; poolc reads last_",
        ),
        (
            {"modality_config": {"text": {"method": "forward"}, "message": {"method": "forward"}}},
            "modality_config has message: the library puts texts into the tokenizer's chat",
        ),
    ],
)
def test_recognize_transformer_that_gives_something_else(
    config: dict[str, Any], message: str, tmp_path: Path, recognise: Recognise
) -> None:
    folder = sentence_transformer(tmp_path / "model")
    write_json(folder / "sentence_bert_config.json", config)
    with pytest.raises(UnsupportedModel, match=f"sentence_bert_config.json: {message}"):
        recognise(folder)


def test_recognize_convert_none_of_a_generator(tmp_path: Path, recognise: Recognise) -> None:
    folder = causal(tmp_path / "model")
    with pytest.raises(UnsupportedModel, match=r"is no pooling model by itself \(--convert none\)"):
        recognise(folder, convert="none")
    add_modules(folder)
    write_pooling(folder, "lasttoken")
    assert recognise(folder, convert="none").spec.tasks == EMBEDS


# Length.


@pytest.mark.parametrize(
    ("tokenizer", "file", "asked", "expected", "origin"),
    [
        (NO_LIMIT, None, None, 64, "BertModel: positions"),
        (48, None, None, 48, "tokenizer_config.json: model_max_length"),
        (512, None, None, 64, "BertModel: positions"),
        (48, 40, None, 40, "sentence_bert_config.json: max_seq_length"),
        (32, 56, None, 56, "sentence_bert_config.json: max_seq_length"),
        (48, 128, None, 64, "BertModel: positions"),
        (48, 40, 20, 20, "--max-length"),
        (48, 40, 64, 64, "--max-length"),
        (48, 40, 2, 2, "--max-length"),
    ],
)
def test_recognize_max_length(
    tokenizer: int,
    file: int | None,
    asked: int | None,
    expected: int,
    origin: str,
    tmp_path: Path,
    recognise: Recognise,
) -> None:
    folder = sentence_transformer(tmp_path / "model")
    edit_json(folder / "tokenizer_config.json", model_max_length=tokenizer)
    if file is not None:
        write_json(folder / "sentence_bert_config.json", {"max_seq_length": file})
    spec = recognise(folder, max_length=asked).spec
    assert (spec.max_length, spec.origins["max_length"]) == (expected, origin)
    if asked is None and (file or 0) <= 64:
        library = SentenceTransformer(str(folder), device="cpu")
        assert library.max_seq_length == expected


@pytest.mark.parametrize("asked", [65, 1, 0, -1])
def test_recognize_max_length_outside(asked: int, tmp_path: Path, recognise: Recognise) -> None:
    with pytest.raises(InvalidOption, match=f"max_length is {asked}; BertModel has 2 to 64 pos"):
        recognise(encoder(tmp_path / "model"), max_length=asked)


def test_recognize_roberta_loses_positions(tmp_path: Path, recognise: Recognise) -> None:
    folder = roberta(tmp_path / "model", max_position_embeddings=50)
    edit_json(folder / "tokenizer_config.json", model_max_length=NO_LIMIT)
    spec = recognise(folder).spec
    assert (spec.max_length, spec.pad_token_id) == (48, 1)
    assert spec.inputs == ("input_ids", "attention_mask")
    with pytest.raises(InvalidOption, match="max_length is 49; RobertaModel has 2 to 48"):
        recognise(folder, max_length=49)


def test_recognize_no_limit_anywhere(tmp_path: Path, recognise: Recognise) -> None:
    folder = bloom(tmp_path / "model")
    edit_json(folder / "tokenizer_config.json", model_max_length=NO_LIMIT)
    known = recognise(folder)
    assert known.spec.max_length == 512
    assert known.spec.origins["max_length"] == "default: no file names a limit"
    assert "no file names a maximum length: 512 tokens (--max-length)" in known.warnings
    assert recognise(folder, max_length=4096).spec.max_length == 4096


def test_recognize_tokenizer_without_segments(tmp_path: Path, recognise: Recognise) -> None:
    folder = encoder(tmp_path / "model")
    edit_json(folder / "tokenizer_config.json", model_input_names=["input_ids", "attention_mask"])
    assert recognise(folder).spec.inputs == ("input_ids", "attention_mask")


def test_recognize_truncation_side(tmp_path: Path, recognise: Recognise) -> None:
    folder = encoder(tmp_path / "model")
    assert recognise(folder).spec.truncation_side == "right"
    edit_json(folder / "tokenizer_config.json", truncation_side="left")
    assert recognise(folder).spec.truncation_side == "left"


# Prompts, similarity, sizes.


def test_recognize_prompts_and_similarity(tmp_path: Path, recognise: Recognise) -> None:
    folder = sentence_transformer(tmp_path / "model")
    prompts = {"query": "query: ", "passage": None, "clustering": "group: "}
    settings = {"prompts": prompts, "default_prompt_name": "clustering"}
    write_json(folder / ST_FILE, {**settings, "similarity_fn_name": "dot"})
    spec = recognise(folder).spec
    library = SentenceTransformer(str(folder), device="cpu")
    assert dict(spec.prompts) == {k: v for k, v in library.prompts.items() if k in prompts}
    assert spec.default_prompt_name == library.default_prompt_name == "clustering"
    assert spec.similarity == library.similarity_fn_name == Similarity.DOT
    assert spec.origins["default_prompt_name"] == f"{ST_FILE}: default_prompt_name"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompts": ["query: "]}, "prompts must map names to strings"),
        ({"prompts": {"query": 1}}, "prompts must map names to strings"),
        (
            {"default_prompt_name": "absent"},
            "default_prompt_name 'absent' is not among the prompts",
        ),
        ({"similarity_fn_name": "maxsim"}, "similarity_fn_name 'maxsim'"),
        ({"truncate_dim": 33}, "truncate_dim is 33; this model has 1 to 32"),
    ],
)
def test_recognize_refuses_settings(
    settings: dict[str, Any], message: str, tmp_path: Path, recognise: Recognise
) -> None:
    folder = sentence_transformer(tmp_path / "model")
    write_json(folder / ST_FILE, settings)
    with pytest.raises(UnsupportedModel, match=f"{ST_FILE}: {message}"):
        recognise(folder)


def test_recognize_truncate_dim(tmp_path: Path, recognise: Recognise) -> None:
    folder = sentence_transformer(tmp_path / "model")
    write_json(folder / ST_FILE, {"truncate_dim": 8})
    spec = recognise(folder).spec
    assert (spec.default_dimensions, spec.embedding_size) == (8, HIDDEN)
    assert spec.origins["default_dimensions"] == f"{ST_FILE}: truncate_dim"
    library = SentenceTransformer(str(folder), device="cpu")
    assert np.shape(library.encode("a river")) == (spec.default_dimensions,)


def test_recognize_matryoshka_override(tiny_embedder_source: Path, recognise: Recognise) -> None:
    overrides = {"matryoshka_dimensions": None, "is_matryoshka": True}
    spec = recognise(tiny_embedder_source, hf_overrides=overrides).spec
    assert spec.matryoshka == MatryoshkaSpec(enabled=True)
    assert spec.origins["matryoshka"] == "--hf-overrides: is_matryoshka"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"matryoshka_dimensions": [8, 33]}, r"matryoshka_dimensions is \[8, 33\]; allowed"),
        ({"matryoshka_dimensions": "8"}, "matryoshka_dimensions is '8'; allowed: a list"),
        ({"is_matryoshka": "yes"}, "is_matryoshka is 'yes'; allowed: true, false"),
    ],
)
def test_recognize_matryoshka_override_refused(
    overrides: Any, message: str, tiny_embedder_source: Path, recognise: Recognise
) -> None:
    with pytest.raises(InvalidOption, match=message):
        recognise(tiny_embedder_source, hf_overrides=overrides)


def test_recognize_default_dimensions(tiny_embedder_source: Path, recognise: Recognise) -> None:
    spec = recognise(tiny_embedder_source, pooler_config={"dimensions": 8}).spec
    assert spec.default_dimensions == 8
    assert spec.origins["default_dimensions"] == "--pooler-config dimensions"
    with pytest.raises(InvalidOption, match="dimensions is 64; this model has 1 to 32"):
        recognise(tiny_embedder_source, pooler_config={"dimensions": 64})
    with pytest.raises(InvalidOption, match="dimensions is 9; this model was trained for: 8, 16"):
        recognise(tiny_embedder_source, pooler_config={"dimensions": 9})


def test_recognize_default_dimensions_undeclared(tmp_path: Path, recognise: Recognise) -> None:
    with pytest.raises(InvalidOption, match="model does not support matryoshka repr"):
        recognise(encoder(tmp_path / "model"), pooler_config={"dimensions": 8})


def test_recognize_hf_overrides_change_the_class(tmp_path: Path, recognise: Recognise) -> None:
    folder = encoder(tmp_path / "model")
    overrides = {"architectures": ["BertForSequenceClassification"], "num_labels": 4}
    assert len(recognise(folder, hf_overrides=overrides).spec.labels) == 4
