"""Recognition of sparse, multi-vector and hybrid models: what is chosen, and what is refused."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

from poolc.errors import InvalidOption, UnsafeWeights, UnsupportedModel
from poolc.spec import Kind, PoolingType, SideSpec, Similarity, SparseSpec, Task, Trunk
from tests.compiler.conftest import Recognise
from tests.compiler.folders import causal, edit_json, encoder
from tests.compiler.retrieval_folders import masked_lm, multi_vector, stanford, token_dense
from tests.models import (
    DOCUMENT_LENGTH,
    HIDDEN,
    MAX_LENGTH,
    QUERY_LENGTH,
    TOKEN_DIM,
    tiny_bge_m3,
    tiny_colbert,
    tiny_splade,
    write_pooling,
    write_typed_modules,
)

ST_FILE = "config_sentence_transformers.json"
BGE_M3 = {"architectures": ["BgeM3EmbeddingModel"]}


def built(builder: Any, folder: Path) -> Path:
    folder.mkdir()
    builder(folder)
    return folder


def set_expansion(folder: Path, **expansion: Any) -> None:
    edit_json(folder / "sentence_bert_config.json", query_expansion=expansion)


# Sparse.


def test_recognize_splade(tmp_path: Path, recognise: Recognise) -> None:
    spec = recognise(built(tiny_splade, tmp_path / "model")).spec
    assert (spec.kind, spec.trunk) == (Kind.SPARSE, Trunk.MASKED_LM)
    assert spec.tasks == (Task.EMBED_SPARSE, Task.SCORE, Task.ENCODE)
    assert (spec.sparse, spec.similarity) == (SparseSpec(), Similarity.DOT)
    assert (spec.embedding_size, spec.max_length) == (spec.vocab_size, MAX_LENGTH)
    assert spec.origins["sparse"] == "1_SpladePooling/config.json"
    assert spec.origins["kind"] == "modules.json: a SpladePooling module"


def test_recognize_splade_settings(tmp_path: Path, recognise: Recognise) -> None:
    folder = built(tiny_splade, tmp_path / "model")
    pooling = {"pooling_strategy": "sum", "activation_function": "log1p_relu"}
    edit_json(folder / "1_SpladePooling" / "config.json", **pooling)
    edit_json(folder / ST_FILE, max_active_dims=64, similarity_fn_name="cosine")
    spec = recognise(folder).spec
    assert spec.sparse == SparseSpec(pooling="sum", log1p=2, top_k=64)
    assert spec.similarity is Similarity.COSINE


def test_recognize_splade_converted_back(tmp_path: Path, recognise: Recognise) -> None:
    spec = recognise(built(tiny_splade, tmp_path / "model"), convert="embed").spec
    assert (spec.kind, spec.pooling) == (Kind.EMBEDDING, (PoolingType.MEAN,))


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        (
            "1_SpladePooling/config.json",
            {"pooling_strategy": "mean"},
            "1_SpladePooling/config.json: pooling_strategy is 'mean'; known: max, sum",
        ),
        (
            "1_SpladePooling/config.json",
            {"activation_function": "elu"},
            "activation_function is 'elu'; known: relu, log1p_relu",
        ),
        (
            "sentence_bert_config.json",
            {"transformer_task": "feature-extraction"},
            "transformer_task is 'feature-extraction'; SpladePooling needs fill-mask",
        ),
        (ST_FILE, {"max_active_dims": 0}, "max_active_dims is 0; it must be a positive integer"),
    ],
)
def test_recognize_splade_refused(
    file: str, changes: Any, message: str, tmp_path: Path, recognise: Recognise
) -> None:
    folder = built(tiny_splade, tmp_path / "model")
    edit_json(folder / file, **changes)
    with pytest.raises(UnsupportedModel, match=message):
        recognise(folder)


def test_recognize_splade_without_its_configuration(tmp_path: Path, recognise: Recognise) -> None:
    folder = built(tiny_splade, tmp_path / "model")
    (folder / "1_SpladePooling" / "config.json").unlink()
    with pytest.raises(UnsupportedModel, match=r"1_SpladePooling/config.json is missing"):
        recognise(folder)


def test_recognize_modules_behind_splade(tmp_path: Path, recognise: Recognise) -> None:
    folder = built(tiny_splade, tmp_path / "model")
    package = "sentence_transformers.sparse_encoder.models"
    kinds = ("MLMTransformer", "SpladePooling", "SparseAutoEncoder")
    write_typed_modules(folder, *((f"{package}.{kind}", kind) for kind in kinds))
    (folder / "MLMTransformer").symlink_to(folder)
    with pytest.raises(UnsupportedModel, match="SpladePooling, SparseAutoEncoder behind the"):
        recognise(folder)


def test_recognize_autoencoder_refused(tmp_path: Path, recognise: Recognise) -> None:
    folder = encoder(tmp_path / "model")
    names = ("models.Transformer", "models.Pooling", "sparse_encoder.models.SparseAutoEncoder")
    paths = ("", "1_Pooling", "2_SparseAutoEncoder")
    types = zip((f"sentence_transformers.{name}" for name in names), paths, strict=True)
    write_typed_modules(folder, *types)
    write_pooling(folder, "mean_tokens")
    with pytest.raises(UnsupportedModel, match=r"modules.json has a SparseAutoEncoder module"):
        recognise(folder)


def test_recognize_sparse_needs_a_language_model_head(tmp_path: Path, recognise: Recognise) -> None:
    folder = causal(tmp_path / "model")
    with pytest.raises(UnsupportedModel, match="Qwen3ForCausalLM has no masked-language-model"):
        recognise(folder, convert="embed_sparse")


def test_recognize_plain_masked_language_model_stays_dense(
    tmp_path: Path, recognise: Recognise
) -> None:
    assert recognise(masked_lm(tmp_path / "model")).spec.kind is Kind.EMBEDDING


# Multi-vector.


def test_recognize_pylate(tmp_path: Path, recognise: Recognise) -> None:
    known = recognise(built(tiny_colbert, tmp_path / "model"))
    spec, sides = known.spec, known.spec.multi_vector
    assert sides is not None
    assert (spec.kind, spec.embedding_size) == (Kind.MULTI_VECTOR, TOKEN_DIM)
    assert spec.tasks == (Task.EMBED_TOKENS, Task.SCORE, Task.ENCODE)
    assert spec.prompts == {"query": "[Q] ", "document": "[D] "}
    assert sides.query == SideSpec(QUERY_LENGTH, expand_to=QUERY_LENGTH)
    assert (sides.document.max_length, sides.max_length) == (DOCUMENT_LENGTH, DOCUMENT_LENGTH - 1)
    assert sides.expansion_id == known.tokenizer.mask_token_id
    words = known.tokenizer.convert_ids_to_tokens(list(sides.document.skipped_ids))
    vocabulary = known.tokenizer.get_vocab()
    assert set(words) == set(string.punctuation) & set(vocabulary)
    assert known.tokenizer.tokenize("[Q] bread")[0] == "[Q] "
    (warning,) = known.warnings
    assert "they are not skipped" in warning


def test_recognize_pylate_names_its_files(tmp_path: Path, recognise: Recognise) -> None:
    known = recognise(built(tiny_colbert, tmp_path / "model"))
    origins = {
        name.removeprefix("multi_vector."): origin
        for name, origin in known.spec.origins.items()
        if name.startswith("multi_vector.")
    }
    assert origins == {
        "dim": "the last layer's width",
        "layers": "modules.json: Dense",
        "normalize": "default of PyLate",
        "max_length": "sentence_bert_config.json: max_seq_length",
        "query.max_length": f"{ST_FILE}: query_length",
        "query.expand_to": f"{ST_FILE}: query_length",
        "query.attend_expansion": f"{ST_FILE}: attend_to_expansion_tokens",
        "document.max_length": f"{ST_FILE}: document_length",
        "document.skipped_ids": f"{ST_FILE}: skiplist_words",
        "expansion_id": "tokenizer: its mask token, else its end token",
    }
    assert known.spec.origins["prompts"] == f"{ST_FILE}: query_prefix and document_prefix"
    longer = f"{ST_FILE}: document_length, the longer side"
    assert known.spec.origins["max_length"] == longer
    (warning,) = known.warnings
    assert warning.startswith(f"{ST_FILE}: skiplist_words: ")


def test_recognize_layout_6_names_its_files(tmp_path: Path, recognise: Recognise) -> None:
    folder = multi_vector(tmp_path, mask=MultiVectorMask(["."]))
    set_expansion(folder, strategy="fixed", length=8)
    edit_json(folder / "sentence_bert_config.json", document_length=20)
    origins = recognise(folder).spec.origins
    file = "sentence_bert_config.json"
    for name in ("max_length", "expand_to", "attend_expansion"):
        assert origins[f"multi_vector.query.{name}"] == f"{file}: query_expansion"
    assert origins["multi_vector.document.max_length"] == f"{file}: document_length"
    mask = "2_MultiVectorMask/config.json: skiplist_words"
    assert origins["multi_vector.document.skipped_ids"] == mask
    assert origins["multi_vector.normalize"] == "3_Normalize/config.json: module_input_name"


def test_recognize_pylate_without_expansion(tmp_path: Path, recognise: Recognise) -> None:
    folder = built(tiny_colbert, tmp_path / "model")
    edit_json(folder / ST_FILE, do_query_expansion=False, skiplist_words=[])
    spec = recognise(folder).spec.multi_vector
    assert spec is not None
    assert (spec.query, spec.document.skipped_ids) == (SideSpec(QUERY_LENGTH), ())


def test_recognize_stanford_defaults(tmp_path: Path, recognise: Recognise) -> None:
    known = recognise(stanford(tmp_path / "model"))
    sides = known.spec.multi_vector
    assert sides is not None
    assert (sides.query.expand_to, sides.document.max_length) == (32, MAX_LENGTH)
    assert known.spec.prompts == {"query": "[unused0] ", "document": "[unused1] "}
    assert known.tokenizer.tokenize("[unused0] bread")[0] == "[unused0]"
    assert known.spec.origins["multi_vector"] == "defaults of Stanford's ColBERT"


def test_recognize_max_length_of_sides(tmp_path: Path, recognise: Recognise) -> None:
    folder = built(tiny_colbert, tmp_path / "model")
    spec = recognise(folder, max_length=20).spec
    sides = spec.multi_vector
    assert sides is not None
    assert (spec.max_length, sides.document.max_length, sides.query.max_length) == (20, 20, 12)
    with pytest.raises(InvalidOption, match=r"expanded to 12 tokens .*, but --max-length is 8"):
        recognise(folder, max_length=8)


def test_recognize_expansion_beyond_the_positions(tmp_path: Path, recognise: Recognise) -> None:
    folder = stanford(tmp_path / "model", query_maxlen=100)
    with pytest.raises(InvalidOption, match=r"expanded to 100 .*HF_ColBERT has positions for 64"):
        recognise(folder)


@pytest.mark.parametrize(
    ("expansion", "message"),
    [
        ({"strategy": "pad", "length": 8}, "strategy is 'pad'; known: fixed, min"),
        ({"strategy": "fixed"}, "query_expansion: length is missing"),
        ({"strategy": "min", "length": 0}, "query_expansion: length is 0; it must be a positive"),
        ({"strategy": "min", "length": 8, "by": 3}, "query_expansion has 'by'; known: strategy"),
        ({"strategy": "min", "length": 8, "attend": 1}, "attend true or false"),
        ({"strategy": "min", "length": 8, "token": "[X]"}, "token '\\[X\\]' is not in the token"),
    ],
)
def test_recognize_expansion_refused(
    expansion: Any, message: str, tmp_path: Path, recognise: Recognise
) -> None:
    folder = multi_vector(tmp_path)
    set_expansion(folder, **expansion)
    with pytest.raises(UnsupportedModel, match=message):
        recognise(folder)


def test_recognize_expansion_longer_than_queries(tmp_path: Path, recognise: Recognise) -> None:
    folder = multi_vector(tmp_path)
    set_expansion(folder, strategy="min", length=16)
    edit_json(folder / "sentence_bert_config.json", query_length=8)
    with pytest.raises(UnsupportedModel, match="query_length is 8, less than the 16 tokens"):
        recognise(folder)


def test_recognize_expansion_without_mask_token(tmp_path: Path, recognise: Recognise) -> None:
    folder = multi_vector(tmp_path)
    set_expansion(folder, strategy="fixed", length=8)
    edit_json(folder / "tokenizer_config.json", mask_token=None)
    with pytest.raises(UnsupportedModel, match="neither a mask nor an end token"):
        recognise(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"skiplist_words": "!?"}, "skiplist_words is '!\\?'; it must be a list of tokens"),
        ({"keep_only_token_ids": ["a"]}, "keep_only_token_ids is .*; it must be a list of token"),
    ],
)
def test_recognize_mask_refused(
    changes: Any, message: str, tmp_path: Path, recognise: Recognise
) -> None:
    folder = multi_vector(tmp_path, mask=MultiVectorMask(["."]))
    edit_json(folder / "2_MultiVectorMask" / "config.json", **changes)
    with pytest.raises(UnsupportedModel, match=message):
        recognise(folder)


def test_recognize_projection_that_does_not_fit(tmp_path: Path, recognise: Recognise) -> None:
    folder = multi_vector(tmp_path, token_dense(HIDDEN, 8), token_dense(9, 4))
    with pytest.raises(UnsupportedModel, match="2_Dense: in_features is 9, but 1_Dense gives 8"):
        recognise(folder)


def test_recognize_module_of_multi_vector_refused(tmp_path: Path, recognise: Recognise) -> None:
    folder = built(tiny_colbert, tmp_path / "model")
    package = "sentence_transformers.multi_vector_encoder.modules"
    write_typed_modules(
        folder,
        ("sentence_transformers.models.Transformer", ""),
        (f"{package}.HierarchicalTokenPooling", "1_Pooling"),
    )
    with pytest.raises(UnsupportedModel, match=r"modules.json has a HierarchicalTokenPooling"):
        recognise(folder)


def test_recognize_pylate_without_dense(tmp_path: Path, recognise: Recognise) -> None:
    folder = built(tiny_colbert, tmp_path / "model")
    write_typed_modules(folder, ("sentence_transformers.models.Transformer", ""))
    with pytest.raises(UnsupportedModel, match="no Dense module: a projection would have to be"):
        recognise(folder)


def test_recognize_stanford_without_projection(tmp_path: Path, recognise: Recognise) -> None:
    folder = encoder(tmp_path / "model")
    edit_json(folder / "config.json", architectures=["HF_ColBERT"])
    message = r"model.safetensors holds no linear layer \(linear.weight or weight\), which HF_Col"
    with pytest.raises(UnsupportedModel, match=message):
        recognise(folder)


# Hybrid.


def test_recognize_bge_m3(tmp_path: Path, recognise: Recognise) -> None:
    known = recognise(built(tiny_bge_m3, tmp_path / "model"))
    spec, sparse, tokens = known.spec, known.spec.sparse, known.spec.multi_vector
    assert sparse is not None
    assert tokens is not None
    assert spec.kind is Kind.HYBRID
    assert (spec.pooling, spec.normalize) == ((PoolingType.CLS,), True)
    assert sparse.dropped_ids == (0, 1, 2, 3)  # <s>, <pad>, </s>, <unk>
    assert (tokens.dim, tokens.drops_first, tokens.normalize) == (TOKEN_DIM, True, True)
    assert spec.origins["kind"] == "colbert_linear.pt and sparse_linear.pt"
    assert [w.partition(" is a pickle")[0] for w in known.warnings] == [
        "colbert_linear.pt",
        "sparse_linear.pt",
    ]


@pytest.mark.parametrize("task", ["embed", "token_embed", "token_classify", "embed&token_classify"])
def test_tasks_of_bge_m3(task: str, tmp_path: Path, recognise: Recognise) -> None:
    folder = built(tiny_bge_m3, tmp_path / "model")
    spec = recognise(folder, pooler_config={"task": task}).spec
    assert spec.origins["tasks"].endswith(f"--pooler-config task {task}")


def test_recognize_bge_m3_as_dense_only(tmp_path: Path, recognise: Recognise) -> None:
    folder = built(tiny_bge_m3, tmp_path / "model")
    assert recognise(folder, convert="embed").spec.kind is Kind.EMBEDDING


def test_recognize_bge_m3_without_a_head(tmp_path: Path, recognise: Recognise) -> None:
    folder = built(tiny_bge_m3, tmp_path / "model")
    (folder / "sparse_linear.pt").unlink()
    with pytest.raises(UnsupportedModel, match=r"sparse_linear.pt is missing, which BGE-M3 needs"):
        recognise(folder, hf_overrides=BGE_M3)


def test_recognize_one_head_alone_makes_no_hybrid(tmp_path: Path, recognise: Recognise) -> None:
    folder = built(tiny_bge_m3, tmp_path / "model")
    (folder / "colbert_linear.pt").unlink()
    assert recognise(folder).spec.kind is Kind.EMBEDDING


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("colbert", (TOKEN_DIM, 9), "colbert_linear.pt takes 9 numbers a token, but .* gives 32"),
        ("sparse", (2, HIDDEN), "sparse_linear.safetensors gives 2 numbers a token"),
        ("sparse", (HIDDEN,), "holds no linear layer"),
    ],
)
def test_recognize_bge_m3_heads_that_do_not_fit(
    name: str, shape: tuple[int, ...], message: str, tmp_path: Path, recognise: Recognise
) -> None:
    folder = built(tiny_bge_m3, tmp_path / "model")
    torch.save({"weight": torch.zeros(shape)}, folder / f"{name}_linear.pt")
    with pytest.raises(UnsupportedModel, match=message):
        recognise(folder)


def test_recognize_bge_m3_head_that_could_run_code(tmp_path: Path, recognise: Recognise) -> None:
    folder = built(tiny_bge_m3, tmp_path / "model")
    torch.save(torch.nn.Linear(HIDDEN, 1), folder / "sparse_linear.pt")
    with pytest.raises(UnsafeWeights, match=r"sparse_linear.pt holds more than tensors"):
        recognise(folder)
