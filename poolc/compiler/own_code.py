"""Python of a model's own (``auto_map``), unasked for: where transformers' classes stand in for it.

Where the names differ the model is refused. Where they do not it is refused too, for a class of the
same name may compute something else, unless that class is known to have become transformers' own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import transformers
from transformers import CONFIG_MAPPING

from poolc.compiler.models import has_masked_lm
from poolc.compiler.natives import JINA_V3
from poolc.errors import RemoteCodeRefused

_TRUST = "read it, then pass --trust-remote-code (trust_remote_code=True)"
# Families whose code transformers took over from their authors, by model type: the file of that
# code, which models made from them go on naming.
_UPSTREAMED: Mapping[str, tuple[str, ...]] = {
    "eurobert": ("modeling_eurobert",),
    "falcon": ("modeling_falcon",),
    "gte": ("modeling", "modeling_hf_alibaba_nlp_gte"),
    JINA_V3: ("modeling_lora", "modeling_xlm_roberta"),
    "nomic_bert": ("modeling_hf_nomic_bert",),
    "phi": ("modeling_phi",),
    "phi3": ("modeling_phi3",),
}


def foreign_class(raw: Mapping[str, Any]) -> str | None:
    """Return a class that config.json names beside a model_type that transformers has, and that
    transformers has not."""
    names = [str(name) for name in raw.get("architectures") or []]
    foreign = [name for name in names if getattr(transformers, name, None) is None]
    return foreign[0] if raw.get("model_type") in CONFIG_MAPPING and foreign else None


def check_architectures(raw: Mapping[str, Any]) -> None:
    """Refuse a model that names classes of its own beside a model_type that transformers has.

    Loaded into transformers' class of that type it could fit, and still be another model.
    """
    foreign = foreign_class(raw)
    if foreign is not None:
        raise RemoteCodeRefused(
            f"{foreign} of config.json is not in this transformers; the model brings its own "
            f"Python, which poolc does not run unasked: {_TRUST}"
        )


def own_class(config: Any, auto: str) -> str:
    """Return the class of the model's own that config.json names for ``auto``; "" for none."""
    return str((getattr(config, "auto_map", None) or {}).get(auto, ""))


def check_class(config: Any, auto: str) -> None:
    """Refuse a model that brings the class that ``auto`` would load, under a name of transformers'.

    gte-Qwen2's Qwen2Model attends both ways, transformers' to the left: the weights fit both.
    """
    named = own_class(config, auto)
    if not named or _stands_in(config, named.rpartition("--")[2]):
        return
    raise RemoteCodeRefused(
        f"config.json names Python of the model's own for {auto} ({named}), which poolc does not "
        f"run unasked, and transformers' class may compute something else: {_TRUST}{_or(config)}"
    )


def _stands_in(config: Any, named: str) -> bool:
    """Say whether transformers' class is known to compute what the one of this file does."""
    file, kind = named.partition(".")[0], str(config.model_type)
    if kind == "qwen2" and file == "modeling_qwen":
        # gte-Qwen2's code is transformers' of its day, but for attention, and newer revisions say
        # of that what every other library reads. Older ones leave it to the code.
        return getattr(config, "is_causal", None) is False
    return file in _UPSTREAMED.get(kind, ())


def _or(config: Any) -> str:
    """Return the other ways: what the code does can be said, where it does little."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    kind = str(config.model_type)
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not has_masked_lm(kind):
        attention = (
            ". If it differs in nothing but attending both ways, as gte-Qwen2 does, hf_overrides "
            '{"is_causal": false} says so; if in nothing at all, '
        )
    else:
        attention = ". If it differs in nothing, "
    return f'{attention}hf_overrides {{"auto_map": null}}'
