"""BGE-M3: a dense embedding model with a sparse and a multi-vector head beside its weights."""

from __future__ import annotations

from dataclasses import replace

from poolc.compiler.architecture import Architecture
from poolc.compiler.choices import Choices
from poolc.compiler.linear_files import linear_layer
from poolc.compiler.recognize.context import Context
from poolc.compiler.recognize.embedding import choose_embedding
from poolc.compiler.recognize.multi_vector import choose_unit
from poolc.errors import UnsupportedModel
from poolc.model_cache.source_files import HEAD_PICKLES
from poolc.spec import LayerSpec, MultiVectorSpec, PoolingType, SideSpec, SparseSpec, Task

# What has no lexical weight (FlagEmbedding's list).
_DROPPED = ("cls_token_id", "eos_token_id", "pad_token_id", "unk_token_id")
_DEFAULT = "default of BGE-M3"


def choose_hybrid(context: Context, arch: Architecture, choices: Choices) -> None:
    """Fill in the fields of Kind.HYBRID. Raises UnsupportedModel for heads that do not fit."""
    _choose_dense(context, arch, choices)
    tasks = (Task.EMBED, Task.EMBED_SPARSE, Task.EMBED_TOKENS, Task.EMBED_HYBRID)
    choices.set("tasks", (*tasks, Task.SCORE, Task.ENCODE), choices.origins["tasks"])
    tokens, sparse = (_layer(context, arch, name) for name in HEAD_PICKLES)
    if sparse.out_features != 1:
        raise UnsupportedModel(
            f"{sparse.path} gives {sparse.out_features} numbers a token; a sparse head gives one"
        )
    found = {getattr(context.tokenizer, name) for name in _DROPPED} - {None}
    choices.set("sparse", SparseSpec(layer=sparse, dropped_ids=tuple(sorted(found))), sparse.path)
    longest = choices.values["max_length"]
    side = SideSpec(longest)
    choices.set(
        "multi_vector",
        MultiVectorSpec(
            dim=tokens.out_features,
            max_length=longest,
            query=side,
            document=side,
            layers=(tokens,),
            normalize=choose_unit(context, choices, True),
            drops_first=True,
            mean=True,
        ),
        tokens.path,
    )
    rows = {"dim": tokens.path, "layers": tokens.path, "max_length": choices.origins["max_length"]}
    rows |= dict.fromkeys(("normalize", "drops_first", "mean"), _DEFAULT)
    for name, origin in rows.items():
        choices.origins.setdefault(f"multi_vector.{name}", origin)


def _choose_dense(context: Context, arch: Architecture, choices: Choices) -> None:
    pooler = context.pooler
    configured = (context.st and context.st.pooling) or pooler.pooling
    if configured:
        choose_embedding(context, arch, choices)
        return
    chosen = replace(pooler, pooling=PoolingType.CLS)
    choose_embedding(replace(context, pooler=chosen), arch, choices)
    choices.set("pooling", (PoolingType.CLS,), _DEFAULT)
    if pooler.unit[1] is None:
        choices.set("normalize", True, _DEFAULT)


def _layer(context: Context, arch: Architecture, pickle: str) -> LayerSpec:
    transformer = context.st.transformer if context.st else ""
    # Fetching has turned the pickle into safetensors.
    name = pickle.replace(".pt", ".safetensors")
    path = f"{transformer}/{name}" if transformer else name
    if not (context.folder / path).is_file():
        raise UnsupportedModel(f"{pickle} is missing, which BGE-M3 needs beside its weights")
    layer = linear_layer(context.folder, path, "BGE-M3")
    if layer.in_features != arch.hidden_size:
        raise UnsupportedModel(
            f"{pickle} takes {layer.in_features} numbers a token, but {arch.name} gives "
            f"{arch.hidden_size}"
        )
    return layer
