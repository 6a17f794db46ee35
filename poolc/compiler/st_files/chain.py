"""One chain of modules: what reads the text, pools it, and works on the vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from poolc.compiler.st_files.layers import LAYERS, TEXT, TOKENS, read_layer
from poolc.compiler.st_files.modules import MODULES_FILE, Module, refuse, refuse_first
from poolc.compiler.st_files.pooling import PoolingConfig, read_pooling
from poolc.compiler.st_files.transformer import TransformerConfig, read_transformer
from poolc.errors import UnsupportedModel
from poolc.spec import LayerKind, LayerSpec, PoolingType

TRANSFORMER = "Transformer"
_MLM = "MLMTransformer"  # as sparse models before version 5.4 call it
# Heads that recognition reads by itself (``recognize/sparse.py``, ``recognize/multi_vector.py``).
SPLADE, MULTI_VECTOR_MASK = "SpladePooling", "MultiVectorMask"
_MULTI_VECTOR_TYPES = ("ColBERT", "MultiVectorEncoder")
STATIC = "StaticEmbedding"
MODEL2VEC = "model2vec"
_STATIC_POOLING = PoolingConfig((PoolingType.MEAN,))


@dataclass(frozen=True, slots=True)
class SentenceTransformer:
    """What a folder configures; None or empty where it says nothing.

    Of a model with routes, the modules are those of one route.
    """

    reader: str  # what reads the text: Transformer | StaticEmbedding | model2vec
    transformer: str  # folder of its configuration, tokenizer and weights, relative
    bert: TransformerConfig
    token_layers: tuple[LayerSpec, ...] = ()  # before pooling
    pooled: PoolingConfig | None = None
    pooling_file: str = ""
    layers: tuple[LayerSpec, ...] = ()  # behind pooling, without a Normalize at the end
    normalize: bool = False
    heads: tuple[Module, ...] = ()  # the modules behind the first, as they are listed
    file: str = MODULES_FILE  # that lists the modules
    settings: dict[str, Any] = field(default_factory=dict)  # config_sentence_transformers.json
    router: Router | None = None

    @property
    def model_type(self) -> str:
        """SentenceTransformer | CrossEncoder | ..."""
        return str(self.settings.get("model_type") or "SentenceTransformer")

    @property
    def pooling(self) -> tuple[PoolingType, ...]:
        """The kinds of pooling, which are concatenated; none where no module pools."""
        return self.pooled.kinds if self.pooled is not None else ()

    @property
    def include_prompt(self) -> bool:
        """Whether pooling counts the tokens of a prompt."""
        return self.pooled is None or self.pooled.include_prompt

    @property
    def sparse(self) -> bool:
        """Whether the heads are SPLADE's."""
        return any(module.kind == SPLADE for module in self.heads)

    @property
    def multi_vector(self) -> bool:
        """Whether the heads give one vector a token: of Sentence Transformers or of PyLate."""
        return (
            self.model_type in _MULTI_VECTOR_TYPES
            or any(module.kind == MULTI_VECTOR_MASK for module in self.heads)
            or "query_prefix" in self.settings  # PyLate before it named its model type
        )

    @property
    def transformer_settings(self) -> Mapping[str, Any]:
        """``max_length_file``, read."""
        return self.bert.settings

    @property
    def is_static(self) -> bool:
        """Whether a table of token vectors stands where others have a transformer."""
        return self.reader != TRANSFORMER

    @property
    def max_length(self) -> int | None:
        """Tokens that the Transformer module is configured for."""
        return self.bert.max_length

    @property
    def max_length_file(self) -> str:
        """The file that says ``max_length``."""
        return self.bert.file

    @property
    def max_length_key(self) -> str:
        """The key of that file."""
        return self.bert.length_key

    @property
    def lower_case(self) -> bool:
        """Whether texts are lower-cased before they are tokenised."""
        return self.bert.lower_case


@dataclass(frozen=True, slots=True)
class Router:
    """Which route the texts of a side take, and the modules of all routes but the main one."""

    file: str
    main: str
    sides: Mapping[str, str]
    has_default: bool
    others: Mapping[str, SentenceTransformer]


def read_chain(
    folder: Path, modules: Sequence[Module], settings: dict[str, Any]
) -> SentenceTransformer:
    """Read modules that follow each other. Raises UnsupportedModel."""
    first, *rest = modules
    if first.kind not in (TRANSFORMER, _MLM, STATIC):
        raise refuse_first(first.kind, f"{TRANSFORMER} and {STATIC}")
    is_static = first.kind == STATIC
    found = SentenceTransformer(
        reader=STATIC if is_static else TRANSFORMER,
        transformer=first.path,
        bert=TransformerConfig() if is_static else read_transformer(folder, first.path),
        heads=tuple(rest),
        settings=settings,
    )
    return found if found.sparse or found.multi_vector else _with_layers(folder, found, modules)


def _with_layers(
    folder: Path, found: SentenceTransformer, modules: Sequence[Module]
) -> SentenceTransformer:
    is_static = found.is_static
    pooled, pooling_file = (_STATIC_POOLING, MODULES_FILE) if is_static else (None, "")
    token_layers: list[LayerSpec] = []
    layers: list[LayerSpec] = []
    for module in found.heads:
        if module.kind == "Pooling":
            _check_first_pooling(modules, pooled, is_static)
            pooling_file = f"{module.path}/config.json"
            pooled = read_pooling(folder / pooling_file, pooling_file)
        elif module.kind not in LAYERS:
            raise refuse(module.kind)
        elif pooled is None:
            token_layers.append(read_layer(folder, module, TOKENS))
        else:
            layers.append(read_layer(folder, module, TEXT))
    normalize = bool(layers) and layers[-1].kind is LayerKind.NORMALIZE
    return replace(
        found,
        token_layers=tuple(token_layers),
        pooled=pooled,
        pooling_file=pooling_file,
        layers=tuple(layers[:-1] if normalize else layers),
        normalize=normalize,
    )


def _check_first_pooling(
    modules: Sequence[Module], pooled: PoolingConfig | None, is_static: bool
) -> None:
    if pooled is not None:
        orders = ", ".join(module.kind for module in modules)
        raise UnsupportedModel(
            f"modules.json orders {orders}: "
            + (
                "StaticEmbedding pools by itself"
                if is_static
                else "the second Pooling would replace the first's vector"
            )
            + "; poolc reads one Pooling, whose pooling_mode may list several kinds"
        )
