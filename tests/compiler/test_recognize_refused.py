"""What recognition refuses: unknown architectures, foreign code, malformed configuration."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from poolc.errors import PoolcError, RemoteCodeRefused, UnsupportedModel
from tests.compiler.conftest import Recognise
from tests.compiler.folders import edit_json, encoder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "nonsense"}, "transformers does not know model_type 'nonsense'"),
        ({"model_type": None}, "transformers does not know model_type 'none'"),
        ({"hidden_size": "large"}, "not one that transformers accepts for model_type 'bert'"),
        ({"num_attention_heads": 5}, "transformers cannot build BertModel: The hidden size"),
        ({"num_attention_heads": 0}, "transformers cannot build BertModel: "),
        ({"hidden_act": "nonsense"}, "transformers cannot build BertModel: KeyError 'nonsense'"),
        ({"model_type": "vit"}, "ViTModel is not a text encoder with token embeddings"),
        ({"model_type": "clip"}, "transformers cannot build BertModel: `get_input_embeddings`"),
        (
            {"model_type": "bart"},
            "BertModel is an encoder-decoder model of which transformers has no",
        ),
    ],
)
def test_recognize_unknown_architecture(
    changes: dict[str, Any], message: str, tmp_path: Path, recognise: Recognise
) -> None:
    folder = encoder(tmp_path / "model")
    edit_json(folder / "config.json", **changes)
    with pytest.raises(UnsupportedModel, match=message) as caught:
        recognise(folder)
    assert "\n" not in str(caught.value)


def test_recognize_remote_code_is_refused_and_not_run(
    tmp_path: Path, recognise: Recognise, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where transformers copies remote code to, and imports it from.
    cache = "transformers.dynamic_module_utils.HF_MODULES_CACHE"
    monkeypatch.setattr(cache, str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", sys.path.copy())
    folder = encoder(tmp_path / "model")
    ran = tmp_path / "ran"
    for name in ("configuration_custom", "modeling_custom"):
        (folder / f"{name}.py").write_text(f"open({str(ran)!r}, 'w').close()\n")
    auto_map = {
        "AutoConfig": "configuration_custom.CustomConfig",
        "AutoModel": "modeling_custom.CustomModel",
    }
    edit_json(folder / "config.json", model_type="custom", auto_map=auto_map)
    with pytest.raises(RemoteCodeRefused) as caught:
        recognise(folder)
    assert str(caught.value) == (
        "model_type 'custom' is not in this transformers; the model brings its own Python, which "
        "poolc does not run unasked: read it, then pass --trust-remote-code "
        "(trust_remote_code=True)"
    )
    assert not ran.exists()
    # With trust it is imported, and found to hold no such class.
    with pytest.raises(PoolcError):
        recognise(folder, trust_remote_code=True)
    assert ran.exists()


def test_recognize_foreign_class_of_a_known_type(tmp_path: Path, recognise: Recognise) -> None:
    """It could fit transformers' class of that type, and still be another model."""
    folder = encoder(tmp_path / "model")
    auto_map = {"AutoModel": "modeling_custom.BertVariantModel"}
    edit_json(folder / "config.json", architectures=["BertVariantModel"], auto_map=auto_map)
    with pytest.raises(
        RemoteCodeRefused, match=r"^BertVariantModel of config\.json is not in this"
    ):
        recognise(folder)


def test_recognize_quantised_weights(tmp_path: Path, recognise: Recognise) -> None:
    folder = encoder(tmp_path / "model")
    edit_json(folder / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(UnsupportedModel) as caught:
        recognise(folder)
    assert str(caught.value) == (
        "config.json: quantization_config says that the weights are quantised (gptq), which poolc "
        "does not read: compile the original weights, with --precision int8 or another for a small "
        "artifact. If these are whole, as merged ones of a QLoRA training may be: hf_overrides "
        '{"quantization_config": null}'
    )
    known = recognise(folder, hf_overrides={"quantization_config": None}, convert="embed")
    assert known.spec.architecture == "BertModel"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "model/config.json cannot be read as JSON: "),
        ("[]", "model/config.json must hold a JSON object"),
        ("{}", "model has no config.json: give a Hugging Face model folder"),
    ],
)
def test_recognize_malformed_config(
    content: str, message: str, tmp_path: Path, recognise: Recognise
) -> None:
    folder = encoder(tmp_path / "model")
    (folder / "config.json").write_text(content)
    with pytest.raises(UnsupportedModel, match=message):
        recognise(folder)
