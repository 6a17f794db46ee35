"""The vocabulary of the compiler, the artifact and the runtime. A leaf: no I/O, no imports of ours.

All of it is string enums and frozen dataclasses that JSON can carry (``model_cache/serde.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Task(StrEnum):
    """What a model can be asked for."""

    EMBED = "embed"
    EMBED_SPARSE = "embed_sparse"  # weights by token id (SPLADE, BGE-M3)
    EMBED_TOKENS = "embed_tokens"  # one vector a token (ColBERT)
    EMBED_HYBRID = "embed_hybrid"  # dense, sparse and token vectors from one pass
    CLASSIFY = "classify"
    CLASSIFY_TOKENS = "classify_tokens"  # one label distribution a token, or labelled spans
    SCORE = "score"
    REWARD = "reward"
    ENCODE = "encode"


class Kind(StrEnum):
    """Which head a model has: decides its graph outputs and what it can be asked for."""

    EMBEDDING = "embedding"
    CLASSIFIER = "classifier"  # cross-encoders and rerankers made from a language model too
    TOKEN_CLASSIFIER = "token-classifier"
    REWARD = "reward"  # one row a token; a reward for the whole text is a classifier's one label
    SPARSE = "sparse"
    MULTI_VECTOR = "multi-vector"
    HYBRID = "hybrid"  # BGE-M3: dense, sparse and multi-vector heads over one trunk


class Trunk(StrEnum):
    """Which class of transformers stands below the head (the Auto class that builds it)."""

    BASE = "base"  # AutoModel
    SEQUENCE_CLASSIFIER = "sequence-classifier"
    TOKEN_CLASSIFIER = "token-classifier"
    MASKED_LM = "masked-lm"
    CAUSAL_LM = "causal-lm"  # only the rows of its head that spec.lm_head names are computed
    STATIC = "static"  # no transformer: a table of token vectors


class LayerKind(StrEnum):
    """One step between pooling and the answer (a module of Sentence Transformers)."""

    DENSE = "dense"
    LAYER_NORM = "layer_norm"
    NORMALIZE = "normalize"  # in the middle of a chain; the last one is ``ModelSpec.normalize``


class PoolingType(StrEnum):
    """How token vectors [seq, hidden] become one vector; ``all`` keeps them."""

    CLS = "cls"
    MEAN = "mean"
    MAX = "max"
    LAST = "last"
    MEAN_SQRT_LEN = "mean_sqrt_len"
    WEIGHTED_MEAN = "weighted_mean"
    ALL = "all"


class Activation(StrEnum):
    """Element-wise functions of a head, named as in ``torch.nn``; softmax is over the last axis."""

    IDENTITY = "identity"
    SIGMOID = "sigmoid"
    SOFTMAX = "softmax"
    TANH = "tanh"
    RELU = "relu"
    GELU = "gelu"
    SILU = "silu"
    ELU = "elu"
    LEAKY_RELU = "leakyrelu"
    MISH = "mish"
    SOFTPLUS = "softplus"
    CELU = "celu"
    SELU = "selu"
    RELU6 = "relu6"
    RRELU = "rrelu"
    HARDSIGMOID = "hardsigmoid"
    HARDSWISH = "hardswish"
    HARDTANH = "hardtanh"
    HARDSHRINK = "hardshrink"
    SOFTSHRINK = "softshrink"
    SOFTSIGN = "softsign"
    TANHSHRINK = "tanhshrink"
    LOGSIGMOID = "logsigmoid"


class Similarity(StrEnum):
    """How an embedding model compares vectors (Sentence Transformers' ``similarity_fn_name``)."""

    COSINE = "cosine"
    DOT = "dot"
    EUCLIDEAN = "euclidean"
    MANHATTAN = "manhattan"


class Precision(StrEnum):
    """Number format of the trunk; heads always run in fp32."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"
    FP8 = "fp8"


class Target(StrEnum):
    """What an artifact is lowered for."""

    CPU = "cpu"
    CUDA = "cuda"
    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt-rtx"


class Defaults(StrEnum):
    """Whose pooling defaults hold where a model's files configure none."""

    SENTENCE_TRANSFORMERS = "sentence-transformers"
    VLLM = "vllm"


# Origin of a pooling that no file and no option chose: with other defaults it would be another.
LIBRARY_DEFAULT = "default of Sentence Transformers"


class Convert(StrEnum):
    """What to make of a model (vLLM's ``--convert``)."""

    AUTO = "auto"
    NONE = "none"
    EMBED = "embed"
    EMBED_SPARSE = "embed_sparse"  # SPLADE over the masked-language-model head
    CLASSIFY = "classify"
    REWARD = "reward"


# Graph inputs, int64 [batch, seq] in the canonical graph.
INPUT_IDS = "input_ids"
ATTENTION_MASK = "attention_mask"
TOKEN_TYPE_IDS = "token_type_ids"
POOLING_MASK = "pooling_mask"  # of models whose pooling does not count every token: 1 where it does

# Further inputs of graphs whose trunk has no padding, int32 (``runtime/packing.py``).
TOKEN_INDICES = "token_indices"  # [tokens], where in [batch * seq] each real token is
TOKEN_OFFSET = "token_offset"  # [batch, seq], the same, and then the places of the padding
CU_SEQLENS = "cu_seqlens"  # [batch + 1], where in the list of tokens each text begins
RESTORE_INDICES = "restore_indices"  # [batch, seq], which token of the list goes there

# Graph outputs, all float32.
POOLED = "pooled"  # [batch, dim], after Dense, before Normalize
SENTENCE_EMBEDDING = "sentence_embedding"  # [batch, dim]
LOGITS = "logits"  # [batch, labels]
PROBS = "probs"  # [batch, labels]
TOKEN_EMBEDDINGS = "token_embeddings"  # [batch, seq, hidden], the last hidden states
TOKEN_VECTORS = "token_vectors"  # [batch, seq, dim], projected and normalised (ColBERT)
TOKEN_LOGITS = "token_logits"  # [batch, seq, labels]
SPARSE_EMBEDDING = "sparse_embedding"  # [batch, vocab], one weight a token of the vocabulary
SPARSE_WEIGHTS = "sparse_weights"  # [batch, seq], one weight a token of the text

# What is kept of a row of ``sparse_embedding`` once it has run: its weights that are not zero.
SPARSE_INDICES = "sparse_indices"
SPARSE_VALUES = "sparse_values"

# Outputs with one row a token, whose padding the runtime cuts off.
TOKEN_OUTPUTS = frozenset({TOKEN_EMBEDDINGS, TOKEN_VECTORS, TOKEN_LOGITS, SPARSE_WEIGHTS})

# Output sets: one executable graph each (a graph computes all its outputs whatever is fetched).
MAIN_SET = "main"
TOKENS_SET = "tokens"
HYBRID_SET = "hybrid"


@dataclass(frozen=True, slots=True)
class Profile:
    """Shapes that an engine is built for: (batch, seq) at least, tuned for, and at most."""

    min_shape: tuple[int, int]
    opt_shape: tuple[int, int]
    max_shape: tuple[int, int]


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One module of a head's chain; ``path`` is its folder in the source model.

    A linear layer without a folder of its own has the file that holds its weights there.

    Dense is activation(linear(x)), plus x (projected where the sizes differ) with ``residual``.
    """

    path: str
    in_features: int
    out_features: int
    bias: bool = True
    activation: Activation = Activation.IDENTITY
    residual: bool = False
    kind: LayerKind = LayerKind.DENSE


@dataclass(frozen=True, slots=True)
class LmHeadSpec:
    """Which rows of a language model's head are its logits.

    ``difference``: two rows, false then true, of which one logit is made, true minus false (vLLM's
    ``from_2_way_softmax``: its sigmoid is the two-way softmax probability of true).
    """

    token_ids: tuple[int, ...]
    difference: bool = False


@dataclass(frozen=True, slots=True)
class StepSpec:
    """Process rewards: the tokens that are rewarded, and the columns that are the reward."""

    tag_id: int | None = None  # only at these tokens; None: at every token
    columns: tuple[int, ...] = ()  # of the token logits; empty: all


@dataclass(frozen=True, slots=True)
class SparseSpec:
    """How sparse weights are made and read.

    Without ``layer`` they are the logits of a masked-language-model head (SPLADE); with it, one
    number a token of the text, of which each token id keeps the largest (BGE-M3).
    """

    pooling: str = "max"  # of token weights: max | sum
    log1p: int = 1  # how often log(1 + x) is applied to relu(logits)
    layer: LayerSpec | None = None
    dropped_ids: tuple[int, ...] = ()  # special tokens, which have no weight
    top_k: int | None = None  # weights kept of a text where a request does not say; None: all


@dataclass(frozen=True, slots=True)
class SideSpec:
    """How one side (query or document) of a multi-vector model is tokenised and masked.

    ``max_length`` counts special tokens and the expansion, as ``ModelSpec.max_length`` does.
    """

    max_length: int
    expand_to: int | None = None  # pad with the expansion token to so many tokens
    attend_expansion: bool = False  # whether the text's tokens see the expansion
    skipped_ids: tuple[int, ...] = ()  # tokens that are no part of the result: punctuation
    kept_ids: tuple[int, ...] = ()  # the only tokens that are; empty: all


@dataclass(frozen=True, slots=True)
class MultiVectorSpec:
    """One vector a token (ColBERT): its layers, both sides, the token that queries grow by."""

    dim: int  # of each vector
    max_length: int  # of texts of neither side
    query: SideSpec
    document: SideSpec
    layers: tuple[LayerSpec, ...] = ()
    normalize: bool = True
    expansion_id: int | None = None
    drops_first: bool = False  # the first token has no vector (BGE-M3)
    mean: bool = False  # scores are divided by the query's tokens (MeanMaxSim)


@dataclass(frozen=True, slots=True)
class MatryoshkaSpec:
    """Which output sizes a model was trained for; ``enabled`` without ``dimensions``: any."""

    enabled: bool = False
    dimensions: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a model is and what its heads do: the result of recognition.

    ``origins`` says, for each field that was decided, where the decision came from (a file and key,
    an option, or a named default). Sizes are counts of floats or tokens.
    """

    architecture: str
    model_type: str
    kind: Kind
    tasks: tuple[Task, ...]
    hidden_size: int
    max_length: int  # tokens, special tokens included
    inputs: tuple[str, ...]  # graph inputs, in order
    vocab_size: int  # rows of the token embedding: ids beyond are refused
    pad_token_id: int = 0
    unk_token_id: int | None = None  # of token classifiers, whose words it stands for
    truncation_side: str = "right"  # which end of a long text is cut off: right | left
    chars_per_token: int | None = None  # a text is read to so many times its tokens
    tokenizer: str = "tokenizer.json"  # file in the artifact
    pooling: tuple[PoolingType, ...] = ()  # several are concatenated, as Sentence Transformers does
    token_layers: tuple[LayerSpec, ...] = ()  # before pooling, on every token
    uncounted_ids: tuple[int, ...] = ()  # tokens that pooling leaves out
    layers: tuple[LayerSpec, ...] = ()  # after pooling
    normalize: bool = False
    include_prompt: bool = True  # whether pooling counts the tokens of a prompt
    embedding_size: int | None = None  # of the full vector; None for models that do not embed
    default_dimensions: int | None = None  # Matryoshka size used when a request names none
    labels: tuple[str, ...] = ()  # by label id; empty for models that do not classify
    activation: Activation | None = None  # logits -> probs
    use_activation: bool = True  # whether probs (True) or logits answer when a request does not say
    reward_activation: bool = False  # whether a reward of a whole text is prob or logit by default
    pairs: bool = False  # trained on text pairs (cross-encoder)
    trunk: Trunk = Trunk.BASE
    lm_head: LmHeadSpec | None = None
    logit_mean: float | None = None  # logits are (x - mean) / sigma before the activation
    logit_sigma: float | None = None
    step: StepSpec | None = None
    sparse: SparseSpec | None = None
    multi_vector: MultiVectorSpec | None = None
    template: str | None = None  # file in the artifact that renders a text pair into one prompt
    template_special_tokens: bool = True  # whether its prompts get the tokenizer's special tokens
    instruction: str | None = None  # what the template gets where a request names none
    chunk: bool = False  # long texts are chunked where a request does not say
    max_embed_length: int | None = None  # tokens that chunking accepts; None: any number
    similarity: Similarity = Similarity.COSINE
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    matryoshka: MatryoshkaSpec = field(default_factory=MatryoshkaSpec)
    router: RouterSpec | None = None
    origins: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RouterSpec:
    """Asymmetric models: the texts of each side take a route of their own through the model.

    The ModelSpec that holds this describes the route ``main``; ``others`` are described whole.
    """

    main: str
    sides: Mapping[str, str]  # route by side
    has_default: bool  # whether a request that names no side takes the main route, or is refused
    others: Mapping[str, ModelSpec] = field(default_factory=dict)


def route_set(output_set: str, route: str) -> str:
    """Return the name of an output set, whatever route's, of a route; "" is the main one."""
    output_set = output_set.partition("@")[0]
    return f"{output_set}@{route}" if route else output_set


def set_route(output_set: str) -> str:
    """Return the route that an output set belongs to; "" is the main one."""
    return output_set.partition("@")[2]


def route_spec(spec: ModelSpec, route: str) -> ModelSpec:
    """Return what holds for a route; "" is the main one."""
    return spec.router.others[route] if route and spec.router else spec


def output_sets(spec: ModelSpec) -> dict[str, tuple[str, ...]]:
    """Return the outputs of each executable graph, by output set."""
    main = {
        Kind.EMBEDDING: (POOLED, SENTENCE_EMBEDDING),
        Kind.HYBRID: (POOLED, SENTENCE_EMBEDDING),
        Kind.CLASSIFIER: (LOGITS, PROBS),
        Kind.TOKEN_CLASSIFIER: (TOKEN_LOGITS,),
        Kind.REWARD: (TOKEN_LOGITS,),
        Kind.SPARSE: (SPARSE_EMBEDDING,),
        Kind.MULTI_VECTOR: (TOKEN_VECTORS,),
    }[spec.kind]
    if spec.kind is Kind.REWARD and not spec.labels:  # no head: hidden states are the answer
        main = (TOKEN_EMBEDDINGS,)
    sets = {MAIN_SET: main, TOKENS_SET: (TOKEN_EMBEDDINGS,)}
    if spec.kind is Kind.HYBRID:  # its heads are cheap: any of them alone runs in this set too
        sets[HYBRID_SET] = (POOLED, SENTENCE_EMBEDDING, SPARSE_WEIGHTS, TOKEN_VECTORS)
    return sets


@dataclass(frozen=True, slots=True)
class CompileOptions:
    """Everything a user can ask of the compiler that changes the artifact.

    ``pooler_config`` and ``hf_overrides`` are vLLM's JSON objects. None: "as the model says".
    """

    target: Target = Target.CPU
    precision: Precision = Precision.FP32
    runner: str = "auto"  # auto | pooling | generate
    convert: Convert = Convert.AUTO
    pooler_config: Mapping[str, Any] = field(default_factory=dict)
    hf_overrides: Mapping[str, Any] = field(default_factory=dict)
    max_length: int | None = None  # tokens
    revision: str | None = None
    tokenizer: str | None = None  # folder or hub id of another tokenizer
    score_template: str | None = None  # Jinja source that makes one prompt of a text pair
    trust_remote_code: bool = False
    allow_pickle: bool = False
    defaults: Defaults = Defaults.SENTENCE_TRANSFORMERS
    calibrate: str | None = None  # texts that int8 and fp8 are calibrated on; None: poolc's own
    from_onnx: bool = False  # from the ONNX graph that the model ships, without PyTorch
    keep_canonical: bool = False
    # quick | full | off, or a file or artifact whose tuning record holds
    tune: str = "quick"
    # Of engines, for tensorrt and tensorrt-rtx; None: the library's default.
    profiles: str = "auto"  # auto, or shapes: batch=1..64,seq=16..512; several by semicolons
    compute_capability: str | None = None  # of tensorrt-rtx: 8.9,12.0; None: this machine's GPU
    optimization_level: int | None = None  # 0 to 5: how long the builder looks for fast kernels
    workspace: str | None = None  # most device memory of a kernel: bytes, or a size like 2GB
    hardware_compatibility: str = "none"  # none | same-compute-capability | ampere-plus
    version_compatible: bool = False  # the engine runs on later versions of the library too


# The options of engines.
ENGINE_OPTIONS = (
    *("profiles", "compute_capability", "optimization_level", "workspace"),
    *("hardware_compatibility", "version_compatible"),
)
ENGINE_TARGETS = (Target.TENSORRT, Target.TENSORRT_RTX)
