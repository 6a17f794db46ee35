"""Reading weights: what is missing or of another shape is named, and half precision is widened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForTextEncoding,
    BloomConfig,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    MPNetConfig,
    PretrainedConfig,
    RobertaConfig,
    T5Config,
)

from poolc.compiler.architecture import (
    Architecture,
    architecture_name,
    load_weights,
    one_line,
    probe,
    read_config,
)
from poolc.errors import CorruptWeights, UnsupportedModel
from poolc.spec import Trunk
from tests.compiler.folders import classifier, edit_json, encoder
from tests.models import HIDDEN, bert_config, save_model

WEIGHTS = "model.safetensors"


def read(folder: Path, *, trunk: Trunk = Trunk.BASE) -> Architecture:
    config = read_config(folder, trust_remote_code=False)
    return probe(config, trunk, trust_remote_code=False)


def load(folder: Path, *, trunk: Trunk = Trunk.BASE) -> Any:
    arch = read(folder, trunk=trunk)
    return load_weights(folder, arch, trust_remote_code=False, attention="sdpa")


def change(folder: Path, **tensors: torch.Tensor | None) -> None:
    """Replace tensors by the end of their names, or add them by the whole; None drops one."""
    kept = load_file(folder / WEIGHTS)
    for end, value in tensors.items():
        named = [name for name in kept if name.endswith(end.replace("__", "."))]
        (name,) = named or [end]
        if value is None:
            del kept[name]
        else:
            kept[name] = value
    save_file(kept, folder / WEIGHTS, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        (bert_config(100, max_position_embeddings=77), 77),
        (RobertaConfig(vocab_size=100, max_position_embeddings=514, pad_token_id=1), 512),
        (RobertaConfig(vocab_size=100, max_position_embeddings=514, pad_token_id=0), 513),
        (MPNetConfig(vocab_size=100, max_position_embeddings=514), 512),
        (DebertaV2Config(vocab_size=100, position_biased_input=False), 512),
        (BloomConfig(vocab_size=100, hidden_size=HIDDEN, n_head=4, n_layer=1), None),
    ],
)
def test_probe_positions(config: PretrainedConfig, limit: int | None) -> None:
    config.update({"num_hidden_layers": 1})
    arch = probe(config, Trunk.BASE, trust_remote_code=False)
    assert (arch.position_limit, arch.vocab_size) == (limit, 100)
    assert arch.name == architecture_name(config) == config.model_type


def test_probe_encoder_decoder() -> None:
    """An embedding model is made of the encoder; a classifier's answer is the decoder's."""
    config = T5Config(vocab_size=100, d_model=HIDDEN, d_kv=8, d_ff=64, num_layers=1, num_heads=4)
    arch = probe(config, Trunk.BASE, trust_remote_code=False)
    assert arch.auto is AutoModelForTextEncoding
    with pytest.raises(UnsupportedModel, match=r"^t5 reads its answer at an end-of-text token"):
        probe(config, Trunk.SEQUENCE_CLASSIFIER, trust_remote_code=False)


def test_load_weights(tmp_path: Path) -> None:
    folder = encoder(tmp_path / "model")
    model = load(folder)
    assert (model.dtype, model.training) == (torch.float32, False)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model.config._attn_implementation == "sdpa"


def test_load_weights_widens_half_precision(tmp_path: Path) -> None:
    folder = encoder(tmp_path / "model")
    halves = {name: value.half() for name, value in load_file(folder / WEIGHTS).items()}
    save_file(halves, folder / WEIGHTS, metadata={"format": "pt"})
    edit_json(folder / "config.json", dtype="float16")
    loaded = load(folder).state_dict()
    for name, value in halves.items():
        torch.testing.assert_close(loaded[name], value.float(), rtol=0, atol=0)


def test_load_weights_needs_no_pooler(tmp_path: Path) -> None:
    """No head of poolc's reads it, and many encoders are saved without."""
    folder = encoder(tmp_path / "model")
    change(folder, pooler__dense__weight=None, pooler__dense__bias=None)
    assert load(folder).embeddings is not None


def test_load_weights_of_a_classifier_needs_the_pooler(tmp_path: Path) -> None:
    """DeBERTa's lies beside the trunk, where BERT's lies in it; the logits read both."""
    folder = tmp_path / "model"
    folder.mkdir()
    config = DebertaV2Config(
        vocab_size=100, hidden_size=HIDDEN, num_hidden_layers=1, num_attention_heads=4, num_labels=3
    )
    save_model(DebertaV2ForSequenceClassification(config), folder)
    assert load(folder, trunk=Trunk.SEQUENCE_CLASSIFIER).pooler.dense.weight is not None
    change(folder, pooler__dense__weight=None, pooler__dense__bias=None)
    with pytest.raises(CorruptWeights, match=r"^2 tensors .* \(pooler.dense.bias, pooler.dense.we"):
        load(folder, trunk=Trunk.SEQUENCE_CLASSIFIER)
    assert load(folder).encoder is not None


@pytest.mark.parametrize("kind", ["relative_key", "relative_key_query"])
def test_positions_that_are_not_computed(kind: str, tmp_path: Path) -> None:
    """transformers 5 reads them as absolute; the tensors that it leaves out tell it too."""
    folder = encoder(tmp_path / "model")
    edit_json(folder / "config.json", position_embedding_type=kind)
    with pytest.raises(UnsupportedModel) as caught:
        read(folder)
    assert str(caught.value) == (
        f"config.json: position_embedding_type is '{kind}', which this transformers no longer "
        "computes: it would read the model as one of absolute positions"
    )
    edit_json(folder / "config.json", position_embedding_type="absolute")
    read(folder)


@pytest.mark.parametrize("larger", [False, True])
@pytest.mark.parametrize(
    "name", ["attention.self.distance_embedding.weight", "output.dense.weight_scale_inv"]
)
def test_load_weights_that_have_no_place(name: str, larger: bool, tmp_path: Path) -> None:
    folder = (classifier if larger else encoder)(tmp_path / "model")
    prefix = "bert." if larger else ""
    change(folder, **{f"{prefix}encoder.layer.1.{name}": torch.ones(2)})
    with pytest.raises(CorruptWeights) as caught:
        load(folder)
    assert str(caught.value) == (
        f"1 tensors of the weights have no place in BertModel (encoder.layer.1.{name}): without "
        "them it would compute another model than was trained"
    )


@pytest.mark.parametrize(
    "name",
    [
        "embeddings.position_ids",
        "encoder.layer.0.attention.self.rotary_emb.inv_freq",
        "encoder.layer.0.attn.masked_bias",
        "encoder.layer.0.crossattention.self.query.weight",
        "encoder.layer.2.output.dense.weight",  # more layers than config.json has
        "cls.predictions.bias",
        "decoder.block.0.layer.0.weight",
        "lm_head.weight",
    ],
)
@pytest.mark.parametrize("larger", [False, True])
def test_load_weights_leaves_what_does_no_harm(name: str, larger: bool, tmp_path: Path) -> None:
    folder = (classifier if larger else encoder)(tmp_path / "model")
    change(folder, **{f"{'bert.' if larger else ''}{name}": torch.ones(2)})
    assert load(folder).embeddings is not None
    if larger:
        assert load(folder, trunk=Trunk.SEQUENCE_CLASSIFIER).bert is not None


def test_load_weights_of_a_larger_class(tmp_path: Path) -> None:
    folder = classifier(tmp_path / "model", num_labels=3)
    assert not hasattr(load(folder), "classifier")
    assert load(folder, trunk=Trunk.SEQUENCE_CLASSIFIER).classifier.out_features == 3


def test_load_weights_missing_tensors(tmp_path: Path) -> None:
    folder = encoder(tmp_path / "model")
    change(folder, word_embeddings__weight=None)
    with pytest.raises(CorruptWeights) as caught:
        load(folder)
    assert str(caught.value) == (
        "1 tensors that BertModel needs are not in the weights (embeddings.word_embeddings.weight):"
        " either the files are incomplete or they are not those of BertModel"
    )


def test_load_weights_without_the_head(tmp_path: Path) -> None:
    folder = encoder(tmp_path / "model", architectures=["BertForSequenceClassification"])
    edit_json(folder / "config.json", architectures=["BertForSequenceClassification"])
    with pytest.raises(CorruptWeights, match=r"^2 tensors .* \(classifier.bias, classifier.weight"):
        load(folder, trunk=Trunk.SEQUENCE_CLASSIFIER)


def test_load_weights_of_another_model(tmp_path: Path) -> None:
    folder = encoder(tmp_path / "model")
    save_file({"unrelated": torch.zeros(2)}, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(CorruptWeights, match=r"^3\d tensors .*, \.\.\.\): either the files are"):
        load(folder)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (
            {"word_embeddings__weight": torch.zeros(9, HIDDEN)},
            r"^1 tensors have another shape than config.json gives BertModel: "
            r"embeddings.word_embeddings.weight is \[9, 32\] in the weights and should be \[2",
        ),
        ({"pooler__dense__bias": torch.zeros(9)}, r"^1 tensors .* pooler.dense.bias is \[9\]"),
    ],
)
def test_load_weights_of_another_shape(
    tensors: dict[str, torch.Tensor], message: str, tmp_path: Path
) -> None:
    folder = encoder(tmp_path / "model")
    change(folder, **tensors)
    with pytest.raises(CorruptWeights, match=message):
        load(folder)


def test_load_weights_of_other_labels(tmp_path: Path) -> None:
    folder = classifier(tmp_path / "model", num_labels=3)
    edit_json(folder / "config.json", id2label={str(i): str(i) for i in range(5)})
    with pytest.raises(CorruptWeights, match=r"classifier.bias is \[3\] in the weights and should"):
        load(folder, trunk=Trunk.SEQUENCE_CLASSIFIER)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("tf_model.h5", "save it as safetensors with a library that reads tf_model.h5"),
        (
            "onnx/model.onnx",
            "it ships onnx/model.onnx, which --from-onnx (from_onnx=True) compiles",
        ),
        ("notes.txt", "if it ships onnx/model.onnx, --from-onnx (from_onnx=True) compiles that"),
    ],
)
def test_load_weights_without_any(name: str, hint: str, tmp_path: Path) -> None:
    folder = encoder(tmp_path / "model")
    (folder / "onnx").mkdir()
    (folder / WEIGHTS).rename(folder / name)
    with pytest.raises(CorruptWeights) as caught:
        load(folder)
    assert str(caught.value) == (
        "the model has no weights that poolc reads, model.safetensors or pytorch_model.bin: " + hint
    )


def test_load_weights_that_cannot_be_read(tmp_path: Path) -> None:
    folder = encoder(tmp_path / "model")
    (folder / WEIGHTS).rename(folder / "other.safetensors")
    with pytest.raises(CorruptWeights, match="the weights of BertModel cannot be loaded: "):
        load(folder)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("two\n  lines\n"), "two lines"),
        (ValueError(), "ValueError"),
        (KeyError("name"), "KeyError 'name'"),
    ],
)
def test_one_line(error: Exception, text: str) -> None:
    assert one_line(error) == text
