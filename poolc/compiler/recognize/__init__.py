"""config.json + Sentence Transformers files + overrides -> ModelSpec.

Every choice records its origin. Overrides beat files, files beat defaults. Reads no weights. One
file a kind of model; here is what all kinds share, and the order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from transformers import PreTrainedTokenizerBase

from poolc.compiler import pooler_config, st_files
from poolc.compiler.architecture import Architecture, probe, read_config
from poolc.compiler.choices import Choices
from poolc.compiler.logit_score import find_logit_score
from poolc.compiler.overrides import check_separator
from poolc.compiler.recognize.classifier import choose_classifier
from poolc.compiler.recognize.context import Context, Recognized, Route, Warn, config_changes
from poolc.compiler.recognize.defaults import name_defaults
from poolc.compiler.recognize.embedding import choose_embedding
from poolc.compiler.recognize.hybrid import choose_hybrid
from poolc.compiler.recognize.kind import choose_kind
from poolc.compiler.recognize.length import choose_length
from poolc.compiler.recognize.multi_vector import choose_multi_vector
from poolc.compiler.recognize.pooler import choose_pooler
from poolc.compiler.recognize.reward import choose_reward
from poolc.compiler.recognize.routes import join_routes
from poolc.compiler.recognize.sparse import choose_sparse
from poolc.compiler.recognize.static import choose_static
from poolc.compiler.recognize.template import choose_template
from poolc.compiler.recognize.token_classifier import choose_token_classifier
from poolc.compiler.st_files import SentenceTransformer
from poolc.compiler.static import load_static_tokenizer, probe_static, static_config
from poolc.compiler.tokenizer import load_tokenizer
from poolc.errors import InvalidOption
from poolc.spec import (
    ATTENTION_MASK,
    INPUT_IDS,
    POOLING_MASK,
    TOKEN_TYPE_IDS,
    CompileOptions,
    Kind,
    ModelSpec,
    Trunk,
)

__all__ = ["Context", "Recognized", "Route", "recognize"]

_CHOOSERS: Mapping[Kind, Callable[[Context, Architecture, Choices], None]] = {
    Kind.EMBEDDING: choose_embedding,
    Kind.CLASSIFIER: choose_classifier,
    Kind.TOKEN_CLASSIFIER: choose_token_classifier,
    Kind.REWARD: choose_reward,
    Kind.SPARSE: choose_sparse,
    Kind.MULTI_VECTOR: choose_multi_vector,
    Kind.HYBRID: choose_hybrid,
}


class Look(Protocol):
    """Finds the facts of a model: in its class, or in the graph that it ships."""

    def __call__(
        self, config: Any, trunk: Trunk, kind: Kind, *, trust_remote_code: bool
    ) -> Architecture: ...


def in_class(config: Any, trunk: Trunk, kind: Kind, *, trust_remote_code: bool) -> Architecture:
    """Find the facts in the class that transformers builds, whatever head it gets. See ``Look``."""
    return probe(config, trunk, trust_remote_code=trust_remote_code)


def recognize(
    folder: Path, options: CompileOptions, warn: Warn, look: Look = in_class
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
    main = _route(folder, st, options, warn, look)
    if st is None or st.router is None:
        return main.recognized, main.tokenizer
    others = {
        name: _route(folder, chain, options, warn, look) for name, chain in st.router.others.items()
    }
    return join_routes(st.router, main, others, options), main.tokenizer


def _route(
    folder: Path, st: SentenceTransformer | None, options: CompileOptions, warn: Warn, look: Look
) -> Route:
    """Say what one chain of modules is: a whole model, but for asymmetric ones."""
    transformer = folder / st.transformer if st else folder
    static = load_static_tokenizer(transformer) if st and st.is_static else None
    if st and static:
        config, tokenizer = static_config(transformer, st), static.tokenizer
    else:
        trust = options.trust_remote_code
        config = read_config(
            transformer, trust_remote_code=trust, changes=config_changes(st, options)
        )
        tokenizer = load_tokenizer(transformer, st, trust_remote_code=trust)
    pooler = pooler_config.parse(options.pooler_config)
    logit_score = find_logit_score(folder, st)
    context = Context(folder, options, pooler, st, config, tokenizer, warn, logit_score)
    choices = Choices(options.hf_overrides)
    kind, trunk = choose_kind(context, choices)
    if st and static:
        choices.set("trunk", Trunk.STATIC, choices.origins["kind"])
        arch = probe_static(transformer, config)
        choose_static(context, st, static, arch, choices)
    else:
        arch = look(config, trunk, kind, trust_remote_code=options.trust_remote_code)
        choose_length(context, arch, choices)
    _CHOOSERS[kind](context, arch, choices)
    choose_pooler(context, choices)
    template = choose_template(context, arch, choices)
    pairs = bool(choices.get("pairs"))
    check_separator(options.hf_overrides, pairs=pairs, templated=template is not None)
    name_defaults(context, choices)
    spec = ModelSpec(
        architecture=arch.name,
        model_type=str(config.model_type),
        hidden_size=arch.hidden_size,
        vocab_size=arch.vocab_size,
        inputs=_inputs(arch, tokenizer, choices),
        pad_token_id=_pad_token(arch, tokenizer),
        truncation_side=tokenizer.truncation_side,
        origins=choices.origins,
        **choices.values,
    )
    found = Recognized(spec, arch, st.transformer if st else "", st, template=template)
    return Route(found, tokenizer)


def _inputs(
    arch: Architecture, tokenizer: PreTrainedTokenizerBase, choices: Choices
) -> tuple[str, ...]:
    segments = arch.takes_token_types and TOKEN_TYPE_IDS in tokenizer.model_input_names
    masked = not choices.get("include_prompt", True)
    more = ([TOKEN_TYPE_IDS] if segments else []) + ([POOLING_MASK] if masked else [])
    return (INPUT_IDS, ATTENTION_MASK, *more)


def _pad_token(arch: Architecture, tokenizer: PreTrainedTokenizerBase) -> int:
    of_text = getattr(arch.config, "get_text_config", lambda: arch.config)  # static models: none
    ids = (tokenizer.pad_token_id, getattr(of_text(), "pad_token_id", None))
    # A classifier over a decoder takes the last token that is not its own padding id.
    for value in reversed(ids) if arch.trunk is Trunk.SEQUENCE_CLASSIFIER else ids:
        if isinstance(value, int) and 0 <= value < arch.vocab_size:
            return value
    return 0
