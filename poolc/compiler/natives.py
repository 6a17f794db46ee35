"""Checkpoints in their authors' own layout, of which transformers or poolc has the model itself.

Their repositories name Python of their own (``auto_map``) and settings by other names; transformers
has the same model, and reads the tensors (its conversion mapping), but not such a config.json. Here
are those settings in transformers' names. Jina-BERT's become those of poolc's own class
(``models/jina_bert``), for transformers has none. What the class does not compute is refused.
Weights are another file's business (``adapters.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from poolc.errors import UnsupportedModel

Config = Mapping[str, Any]
JINA_V3 = "jina_embeddings_v3"
JINA_BERT = "jina_bert"  # a model_type of poolc's
# The repositories of Jina's code.
_FLASH = "xlm-roberta-flash-implementation"
_JINA_BERT = "jina-bert-implementation"
_QK_POST_NORM = "jina-bert-v2-qk-post-norm"


def native_config(raw: Config) -> dict[str, Any] | None:
    """Return config.json as transformers names things; None where it needs no translation.

    Raises UnsupportedModel naming a setting that transformers' class does not have.
    """
    for is_foreign, translate in _FAMILIES:
        if is_foreign(raw):
            translated = translate(raw)
            translated.pop("auto_map", None)
            return translated
    return None


def _is_gte(raw: Config) -> bool:
    if raw.get("model_type") == "gte":  # Snowflake's copy; what transformers saves has other rope
        return "pack_qkv" in raw and "rope_parameters" not in raw
    return raw.get("model_type") == "new" and _first_name(raw).startswith("New")


def _gte(raw: Config) -> dict[str, Any]:
    """Alibaba-NLP/new-impl: GTE v1.5, gte-multilingual, and snowflake-arctic-embed-m-v2.0."""
    _refuse(
        raw,
        layer_norm_type="layer_norm",
        position_embedding_type="rope",
        logn_attention_scale=False,
        pack_qkv=True,
    )
    config = _without(raw, "rope_theta", "rope_scaling")
    config["model_type"] = "gte"
    name = _first_name(raw).removeprefix("New").removeprefix("Gte")
    config["architectures"] = [f"Gte{name}"]
    config["rope_parameters"] = _gte_rope(raw)
    return config


def _gte_rope(raw: Config) -> dict[str, Any]:
    """Their fixed NTK scaling is a larger base, and frequencies divided by factor^(2 / dim)."""
    theta, scaling = float(raw.get("rope_theta", 10000.0)), raw.get("rope_scaling")
    if not scaling:
        return {"rope_type": "default", "rope_theta": theta}
    if scaling.get("type") != "ntk" or scaling.get("mixed_b") is not None:
        raise UnsupportedModel(
            f"config.json: rope_scaling is {scaling!r}; poolc reads type ntk without mixed_b"
        )
    factor = float(scaling["factor"])
    dim = raw["hidden_size"] // raw["num_attention_heads"]
    return {
        "rope_type": "linear",
        "rope_theta": theta * factor,
        "factor": factor ** (2 / dim),
    }


def _is_nomic(raw: Config) -> bool:
    return raw.get("model_type") == "nomic_bert" and "n_embd" in raw


_NOMIC_NAMES = {
    "n_embd": "hidden_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_inner": "intermediate_size",
    "n_positions": "max_position_embeddings",
    "layer_norm_epsilon": "layer_norm_eps",
}


def _nomic(raw: Config) -> dict[str, Any]:
    """nomic-ai/nomic-bert-2048: nomic-embed-text v1 and v1.5, with GPT-2's names of sizes."""
    _refuse(
        raw,
        activation_function="swiglu",
        moe_every_n_layers=0,
        parallel_block=False,
        prenorm=False,
        qkv_proj_bias=False,
        mlp_fc1_bias=False,
        mlp_fc2_bias=False,
        rotary_emb_fraction=1.0,
        rotary_emb_interleaved=False,
        use_rms_norm=False,
    )
    config = _without(raw, *_NOMIC_NAMES, "activation_function", "rotary_emb_base")
    config |= {new: raw[old] for old, new in _NOMIC_NAMES.items() if raw.get(old) is not None}
    config.setdefault("intermediate_size", 4 * raw["n_embd"])
    config["hidden_act"] = "silu"
    theta = float(raw.get("rotary_emb_base", 10000.0))
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": theta}
    trained = raw.get("max_trained_positions")
    if raw.get("rotary_scaling_factor") and trained:
        # Beyond these their frequencies depend on the longest text of the batch.
        config["max_position_embeddings"] = min(trained, raw.get("n_positions", trained))
    return config


def _is_jina(raw: Config) -> bool:
    return _runs(raw, _FLASH) and raw.get("position_embedding_type") == "rotary"


def _jina(raw: Config) -> dict[str, Any]:
    """jinaai/xlm-roberta-flash-implementation with rotary positions: jina-embeddings-v3."""
    config = _without(raw, "rotary_emb_base")
    config["model_type"] = JINA_V3
    name = _first_name(raw)
    head = name[name.index("For") :] if "For" in name else "Model"
    config["architectures"] = [f"JinaEmbeddingsV3{head}"]
    theta = float(raw.get("rotary_emb_base") or 10000.0)
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": theta}
    return config


def _is_jina_bert(raw: Config) -> bool:
    return _runs(raw, _JINA_BERT) or _runs(raw, _QK_POST_NORM)


def _jina_bert(raw: Config) -> dict[str, Any]:
    """Both of Jina's BERTs with ALiBi: jina-embeddings-v2, jina-reranker-v1, jina-colbert-v1."""
    allowed = (  # after what their code does where the key is absent
        ("position_embedding_type", "absolute", ("alibi",)),
        ("feed_forward_type", "original", ("geglu", "reglu")),
        ("is_decoder", False, (False,)),
        ("add_cross_attention", False, (False,)),
    )
    for name, absent, values in allowed:
        if raw.get(name, absent) not in values:
            raise UnsupportedModel(
                f"config.json: {name} is {raw.get(name, absent)!r}; poolc computes Jina-BERT with "
                f"{' or '.join(map(repr, values))} only"
            )
    # Theirs is "torch" or null, which is no name of transformers'.
    config = _without(raw, "attn_implementation", "_attn_implementation")
    return config | {"model_type": JINA_BERT, "qk_post_norm": _runs(raw, _QK_POST_NORM)}


_FAMILIES: tuple[tuple[Callable[[Config], bool], Callable[[Config], dict[str, Any]]], ...] = (
    (_is_gte, _gte),
    (_is_nomic, _nomic),
    (_is_jina, _jina),
    (_is_jina_bert, _jina_bert),
)


def _refuse(raw: Config, **required: Any) -> None:
    for name, value in required.items():
        if raw.get(name, value) not in (value, None):
            raise UnsupportedModel(
                f"config.json: {name} is {raw[name]!r}; transformers' class of this model has "
                f"{value!r} only"
            )


def _runs(raw: Config, repository: str) -> bool:
    """Say whether config.json names code of a repository."""
    return any(repository in str(code) for code in (raw.get("auto_map") or {}).values())


def _first_name(raw: Config) -> str:
    return str((raw.get("architectures") or [""])[0])


def _without(raw: Config, *names: str) -> dict[str, Any]:
    return {name: value for name, value in raw.items() if name not in names}
