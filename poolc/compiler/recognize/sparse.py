"""SPLADE models: how token logits become one weight a token of the vocabulary."""

from __future__ import annotations

from typing import Any

from poolc.compiler.architecture import Architecture
from poolc.compiler.choices import Choices
from poolc.compiler.json_files import read_json
from poolc.compiler.recognize.context import Context
from poolc.compiler.recognize.embedding import choose_prompts
from poolc.compiler.st_files.chain import SPLADE
from poolc.errors import UnsupportedModel
from poolc.spec import Similarity, SparseSpec, Task

_POOLING = ("max", "sum")
_LOG1P = {"relu": 1, "log1p_relu": 2}
_ST_FILE = "config_sentence_transformers.json"


def choose_sparse(context: Context, arch: Architecture, choices: Choices) -> None:
    """Fill in the fields of Kind.SPARSE. Raises UnsupportedModel that names the file and key."""
    origin = choices.origins["tasks"]
    choices.set("tasks", (Task.EMBED_SPARSE, Task.SCORE, Task.ENCODE), origin)
    choices.set("embedding_size", arch.vocab_size, "one weight a token of the vocabulary")
    choices.set("similarity", Similarity.DOT, "default of sparse models")
    st = context.st
    if st and st.sparse:
        task = st.transformer_settings.get("transformer_task")
        if task not in (None, "fill-mask"):
            raise UnsupportedModel(
                f"{st.max_length_file}: transformer_task is {task!r}; {SPLADE} needs fill-mask"
            )
        file, config = _pooling_config(context)
        top_k = _whole(st.settings.get("max_active_dims"), f"{_ST_FILE}: max_active_dims")
        choices.set("sparse", _read(config, file, top_k), file)
    else:
        choices.set("sparse", SparseSpec(), f"default of SPLADE: max, relu ({origin})")
    choose_prompts(context, choices)


def _pooling_config(context: Context) -> tuple[str, dict[str, Any]]:
    heads = context.st.heads if context.st else ()
    if [module.kind for module in heads] != [SPLADE]:
        raise UnsupportedModel(
            f"modules.json orders {', '.join(module.kind for module in heads)} behind the "
            f"Transformer; poolc reads {SPLADE} alone there"
        )
    file = f"{heads[0].path}/config.json"
    config = read_json(context.folder / heads[0].path / "config.json")
    if not config:
        raise UnsupportedModel(f"{file} is missing, which modules.json names")
    return file, config


def _read(config: dict[str, Any], file: str, top_k: int | None) -> SparseSpec:
    pooling = config.get("pooling_strategy", "max")
    if pooling not in _POOLING:
        raise UnsupportedModel(
            f"{file}: pooling_strategy is {pooling!r}; known: {', '.join(_POOLING)}"
        )
    activation = config.get("activation_function", "relu")
    if activation not in _LOG1P:
        raise UnsupportedModel(
            f"{file}: activation_function is {activation!r}; known: {', '.join(_LOG1P)}"
        )
    return SparseSpec(pooling=pooling, log1p=_LOG1P[activation], top_k=top_k)


def _whole(value: Any, where: str) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    raise UnsupportedModel(f"{where} is {value!r}; it must be a positive integer")
