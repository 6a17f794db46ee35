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
    CLASSIFY = "classify"
    SCORE = "score"
    REWARD = "reward"
    ENCODE = "encode"


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


class Convert(StrEnum):
    """What to make of a model (vLLM's ``--convert``)."""

    AUTO = "auto"
    NONE = "none"
    EMBED = "embed"
    CLASSIFY = "classify"
    REWARD = "reward"


# Graph inputs, int64 [batch, seq] in the canonical graph.
INPUT_IDS = "input_ids"
ATTENTION_MASK = "attention_mask"
TOKEN_TYPE_IDS = "token_type_ids"

# Graph outputs, all float32.
POOLED = "pooled"  # [batch, dim], after Dense, before Normalize
SENTENCE_EMBEDDING = "sentence_embedding"  # [batch, dim]
LOGITS = "logits"  # [batch, labels]
PROBS = "probs"  # [batch, labels]
TOKEN_EMBEDDINGS = "token_embeddings"  # [batch, seq, hidden]

# Output sets: one executable graph each (a graph computes all its outputs whatever is fetched).
MAIN_SET = "main"
TOKENS_SET = "tokens"


@dataclass(frozen=True, slots=True)
class Profile:
    """Shapes that an engine is built for: (batch, seq) at least, tuned for, and at most."""

    min_shape: tuple[int, int]
    opt_shape: tuple[int, int]
    max_shape: tuple[int, int]


@dataclass(frozen=True, slots=True)
class DenseSpec:
    """One Sentence Transformers ``Dense`` module; ``path`` is its folder in the source model."""

    path: str
    in_features: int
    out_features: int
    bias: bool
    activation: Activation
    residual: bool = False


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
    tasks: tuple[Task, ...]
    hidden_size: int
    max_length: int  # tokens, special tokens included
    inputs: tuple[str, ...]  # graph inputs, in order
    vocab_size: int  # rows of the token embedding: ids beyond are refused
    pad_token_id: int = 0
    truncation_side: str = "right"  # which end of a long text is cut off: right | left
    pooling: tuple[PoolingType, ...] = ()  # several are concatenated, as Sentence Transformers does
    dense: tuple[DenseSpec, ...] = ()
    normalize: bool = False
    embedding_size: int | None = None  # of the full vector; None for models that do not embed
    default_dimensions: int | None = None  # Matryoshka size used when a request names none
    labels: tuple[str, ...] = ()  # by label id; empty for models that do not classify
    activation: Activation | None = None  # logits -> probs
    use_activation: bool = True  # whether probs (True) or logits answer when a request does not say
    pairs: bool = False  # trained on text pairs (cross-encoder)
    similarity: Similarity = Similarity.COSINE
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    matryoshka: MatryoshkaSpec = field(default_factory=MatryoshkaSpec)
    origins: Mapping[str, str] = field(default_factory=dict)


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
    trust_remote_code: bool = False
    allow_pickle: bool = False
    defaults: Defaults = Defaults.SENTENCE_TRANSFORMERS
    keep_canonical: bool = False
