"""config.json + Sentence Transformers files + overrides -> ModelSpec.

Every choice records its origin. Overrides beat files, files beat defaults. Reads no weights. One
file a kind of model; here is what all kinds share, and the order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from poolc.compiler import pooler_config, st_files
from poolc.compiler.architecture import Architecture, probe, read_config
from poolc.compiler.choices import Choices
from poolc.compiler.logit_score import find_logit_score
from poolc.compiler.recognize.classifier import choose_classifier
from poolc.compiler.recognize.context import Context, Recognized, Warn
from poolc.compiler.recognize.embedding import choose_embedding
from poolc.compiler.recognize.kind import choose_kind
from poolc.compiler.recognize.length import choose_length
from poolc.compiler.recognize.reward import choose_reward
from poolc.compiler.recognize.template import choose_template
from poolc.compiler.tokenizer import load_tokenizer
from poolc.errors import InvalidOption
from poolc.spec import ATTENTION_MASK, INPUT_IDS, TOKEN_TYPE_IDS, CompileOptions, Kind, ModelSpec

__all__ = ["Context", "Recognized", "recognize"]

_CHOOSERS: Mapping[Kind, Callable[[Context, Architecture, Choices], None]] = {
    Kind.EMBEDDING: choose_embedding,
    Kind.CLASSIFIER: choose_classifier,
    Kind.REWARD: choose_reward,
}


def recognize(
    folder: Path, options: CompileOptions, warn: Warn
) -> tuple[Recognized, PreTrainedTokenizerBase]:
    """Say what the model in ``folder`` is.

    Raises UnsupportedModel, RemoteCodeRefused, TokenizerError or InvalidOption.
    """
    if options.runner == "generate":
        raise InvalidOption(
            "runner is 'generate'; poolc compiles pooling models: use auto or pooling",
            param="runner",
        )
    st = st_files.read(folder)
    transformer = folder / st.transformer if st else folder
    config = read_config(transformer, trust_remote_code=options.trust_remote_code)
    tokenizer = load_tokenizer(transformer, st, trust_remote_code=options.trust_remote_code)
    pooler = pooler_config.parse(options.pooler_config)
    logit_score = find_logit_score(folder, st)
    context = Context(folder, options, pooler, st, config, tokenizer, warn, logit_score)
    choices = Choices()
    kind, trunk = choose_kind(context, choices)
    affine = (pooler.logit_mean, pooler.logit_sigma) != (None, None)
    if affine and kind is not Kind.CLASSIFIER:
        raise InvalidOption(
            "pooler_config: logit_mean, logit_sigma and logit_bias belong to classifiers; this is "
            f"a model of kind {kind}",
            param="pooler_config",
        )
    arch = probe(config, trunk, trust_remote_code=options.trust_remote_code)
    choose_length(context, arch, choices)
    _CHOOSERS[kind](context, arch, choices)
    template = choose_template(context, arch, choices)
    spec = ModelSpec(
        architecture=arch.name,
        model_type=str(config.model_type),
        hidden_size=arch.hidden_size,
        vocab_size=arch.vocab_size,
        inputs=_inputs(arch, tokenizer),
        pad_token_id=_pad_token(config, tokenizer),
        truncation_side=tokenizer.truncation_side,
        origins=choices.origins,
        **choices.values,
    )
    return Recognized(spec, arch, st.transformer if st else "", st, template), tokenizer


def _inputs(arch: Architecture, tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    segments = arch.takes_token_types and TOKEN_TYPE_IDS in tokenizer.model_input_names
    return (INPUT_IDS, ATTENTION_MASK, *([TOKEN_TYPE_IDS] if segments else []))


def _pad_token(config: Any, tokenizer: PreTrainedTokenizerBase) -> int:
    for value in (tokenizer.pad_token_id, getattr(config, "pad_token_id", None)):
        if isinstance(value, int):
            return value
    return 0
