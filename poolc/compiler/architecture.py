"""What transformers says about a model before its weights are read: class, sizes, inputs, limits.

The model is built on the meta device, so every fact comes from the class that will run, not from a
table of family names. torch is imported where a model is built: what only reads config.json works
without it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers
from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedModel

from poolc.compiler.json_files import read_json
from poolc.compiler.loaded import check_loaded, check_weights
from poolc.compiler.models import register_classes, register_configs
from poolc.compiler.own_code import check_architectures, check_class, own_class
from poolc.compiler.rope import lower_dynamic
from poolc.errors import CorruptWeights, RemoteCodeRefused, UnsupportedModel
from poolc.spec import TOKEN_TYPE_IDS, Trunk

_AUTO_CLASSES: Mapping[Trunk, str] = {
    Trunk.BASE: "AutoModel",
    Trunk.SEQUENCE_CLASSIFIER: "AutoModelForSequenceClassification",
    Trunk.TOKEN_CLASSIFIER: "AutoModelForTokenClassification",
    Trunk.MASKED_LM: "AutoModelForMaskedLM",
    Trunk.CAUSAL_LM: "AutoModelForCausalLM",
}
# What transformers raises for a config.json that its classes do not accept.
_REFUSALS = (
    *(ValueError, TypeError, KeyError, AttributeError, ArithmeticError),
    *(RuntimeError, ImportError, StrictDataclassError),
)


@dataclass(frozen=True, slots=True)
class TokenHead:
    """A module of a class of its own that turns hidden states into logits."""

    name: str  # attribute of the model: score, v_head
    columns: int


@dataclass(frozen=True, slots=True)
class Architecture:
    """Facts of a model class. ``position_limit`` is in tokens, None where there is none."""

    name: str  # as config.json names it
    config: Any
    trunk: Trunk
    auto: Any  # the Auto class that builds it; None where no class is built
    hidden_size: int
    vocab_size: int
    position_limit: int | None
    takes_token_types: bool
    token_head: TokenHead | None = None  # of reward models that bring their own class


def read_config(
    folder: Path, *, trust_remote_code: bool, changes: Mapping[str, Any] | None = None
) -> Any:
    """Read config.json into transformers' configuration class, with the ``changes`` of the folder's
    loading settings.

    Raises RemoteCodeRefused or UnsupportedModel.
    """
    raw = read_json(folder / "config.json")
    if not raw:
        raise UnsupportedModel(
            f"{folder.name} has no config.json: give a Hugging Face model folder"
        )
    register_configs()
    if "auto_map" in raw and not trust_remote_code:
        check_architectures(raw)
    try:
        return lower_dynamic(
            AutoConfig.from_pretrained(
                folder, trust_remote_code=trust_remote_code, **(changes or {})
            )
        )
    except _REFUSALS as error:
        kind = str(raw.get("model_type", "none"))
        if kind in CONFIG_MAPPING:
            raise UnsupportedModel(
                f"config.json is not one that transformers accepts for model_type {kind!r}: "
                f"{one_line(error)}"
            ) from error
        if "auto_map" in raw and not trust_remote_code:
            raise RemoteCodeRefused(
                f"model_type {kind!r} is not in this transformers; the model brings its own "
                "Python, which poolc does not run unasked: read it, then pass --trust-remote-code "
                "(trust_remote_code=True)"
            ) from error
        raise UnsupportedModel(
            f"transformers does not know model_type {kind!r} of config.json: {one_line(error)}"
        ) from error


def probe(config: Any, trunk: Trunk, *, trust_remote_code: bool) -> Architecture:
    """Build the model on the meta device and read its facts.

    Raises UnsupportedModel where transformers has no such class, and RemoteCodeRefused.
    """
    import torch

    if not (trust_remote_code and own_class(config, _AUTO_CLASSES[trunk])):
        check_class(config, _AUTO_CLASSES[trunk])
        _check_positions(config)
    _check_unquantized(config)
    register_classes()
    auto = getattr(transformers, _AUTO_CLASSES[trunk])
    model = _build(auto, config, trust_remote_code)
    # T5EncoderModel's configuration says no, but the class behind AutoModel has both halves.
    both_halves = all(hasattr(model.base_model, half) for half in ("encoder", "decoder"))
    if both_halves and trunk is Trunk.BASE:
        auto, model = _text_encoder(config, trust_remote_code)
    elif both_halves:
        raise UnsupportedModel(
            f"{architecture_name(config)} reads its answer at an end-of-text token of the decoder, "
            "whose place no exported graph can depend on: poolc compiles the encoders of "
            "encoder-decoder models, as embedding models"
        )
    embeddings = model.get_input_embeddings()
    hidden = getattr(config.get_text_config(), "hidden_size", None)
    if not isinstance(embeddings, torch.nn.Embedding) or hidden is None:
        raise UnsupportedModel(
            f"{type(model).__name__} is not a text encoder with token embeddings"
        )
    return Architecture(
        name=architecture_name(config),
        config=config,
        trunk=trunk,
        auto=auto,
        hidden_size=int(hidden),
        vocab_size=embeddings.num_embeddings,
        position_limit=_position_limit(model),
        takes_token_types=TOKEN_TYPE_IDS in inspect.signature(model.forward).parameters,
        token_head=token_head(model) if trunk is Trunk.BASE else None,
    )


def _check_positions(config: Any) -> None:
    """Refuse positions that transformers' classes read past."""
    positions = getattr(config, "position_embedding_type", None)
    if positions in ("relative_key", "relative_key_query"):
        raise UnsupportedModel(
            f"config.json: position_embedding_type is {positions!r}, which this transformers no "
            "longer computes: it would read the model as one of absolute positions"
        )


def _check_unquantized(config: Any) -> None:
    """Refuse weights in a format that transformers reads with another library for each."""
    for name in ("quantization_config", "compression_config"):
        said = getattr(config, name, None)
        if said:
            method = said.get("quant_method") if isinstance(said, Mapping) else None
            raise UnsupportedModel(
                f"config.json: {name} says that the weights are quantised ({method or 'somehow'}), "
                "which poolc does not read: compile the original weights, with --precision int8 or "
                "another for a small artifact. If these are whole, as merged ones of a QLoRA "
                f'training may be: hf_overrides {{"{name}": null}}'
            )


def _text_encoder(config: Any, trust_remote_code: bool) -> tuple[Any, Any]:
    """Return the Auto class of an encoder-decoder family's text encoder, and the model."""
    auto = transformers.AutoModelForTextEncoding
    if type(config) not in auto._model_mapping:
        raise UnsupportedModel(
            f"{architecture_name(config)} is an encoder-decoder model of which transformers has "
            "no text encoder"
        )
    return auto, _build(auto, config, trust_remote_code)


def _build(auto: Any, config: Any, trust_remote_code: bool) -> Any:
    import torch

    try:
        with torch.device("meta"):
            model = auto.from_config(config, trust_remote_code=trust_remote_code)
            model.get_input_embeddings()
    except _REFUSALS as error:  # NotImplementedError, of models without such, is a RuntimeError
        raise UnsupportedModel(
            f"transformers cannot build {architecture_name(config)}: {one_line(error)}"
        ) from error
    return model


def load_weights(
    folder: Path, arch: Architecture, *, trust_remote_code: bool, attention: str
) -> Any:
    """Load the model in fp32, in evaluation mode, with ``attention`` (sdpa or eager).

    Raises CorruptWeights where tensors are missing, have another shape or no place.
    """
    import torch

    check_weights(folder)
    try:
        model, info = arch.auto.from_pretrained(
            folder,
            config=arch.config,
            dtype=torch.float32,
            attn_implementation=attention,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            # Reported below by name instead of by a table in the log.
            ignore_mismatched_sizes=True,
        )
    except (OSError, RuntimeError, ValueError) as error:
        if attention == "sdpa" and "scaled_dot_product_attention" in str(error):
            return load_weights(
                folder, arch, trust_remote_code=trust_remote_code, attention="eager"
            )
        raise CorruptWeights(
            f"the weights of {arch.name} cannot be loaded: {one_line(error)}"
        ) from error
    check_loaded(model, info, arch)
    return model.eval().requires_grad_(False)


def architecture_name(config: Any) -> str:
    """Return the class that config.json names, else the model type."""
    names = getattr(config, "architectures", None)
    return str(names[0]) if names else str(config.model_type)


def token_head(model: PreTrainedModel) -> TokenHead | None:
    """Return the one module beside the base model, which reads its hidden states.

    Its own ``forward`` is no guide to rewards of tokens: InternLM2's and Qwen2.5-Math-RM's keep the
    last token only.
    """
    import torch

    if model.base_model is model:
        return None
    heads = [
        (name, module)
        for name, module in model.named_children()
        if module is not model.base_model and any(True for _ in module.parameters())
    ]
    linear = [m for _, head in heads for m in head.modules() if isinstance(m, torch.nn.Linear)]
    if len(heads) != 1 or not linear:
        return None
    return TokenHead(heads[0][0], linear[-1].out_features)


def _position_limit(model: PreTrainedModel) -> int | None:
    """Return how many positions learned position embeddings hold.

    Families that number positions from padding_idx + 1 (RoBERTa, MPNet) lose that many rows.
    """
    import torch

    for name, module in model.named_modules():
        if "position_embedding" in name and isinstance(module, torch.nn.Embedding):
            offset = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - offset
    limit = getattr(model.config, "max_position_embeddings", None)
    return int(limit) if isinstance(limit, int) and limit > 0 else None


def one_line(error: BaseException) -> str:
    """Return a library's message without its line breaks; a KeyError's is only a key."""
    text = " ".join(str(error).split()) or type(error).__name__
    return f"{type(error).__name__} {text}" if isinstance(error, KeyError) else text
