"""fastembed, with the same weights: a custom model over Sentence Transformers' ONNX file.

It pads in the order of the texts, not by length: that is how it is used, and the batch size is the
user's to choose (its default is 256).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.systems.protocol import Items, Job, Setting, batch_sizes, serve
from benchmarks.systems.sentence_transformers import PLAIN, file_of

NAME = "benchmark/model"


class FastEmbed:
    """An embedder or a cross-encoder."""

    settings: list[Setting] = batch_sizes(256, 32, 8)

    def __init__(self, job: Job) -> None:
        self._pairs = job.task == "score"
        folder = _folder(job)
        options = {"threads": job.threads or None, "specific_model_path": str(folder)}
        self._model = _encoder(folder, options) if self._pairs else _embedder(job, folder, options)

    def run(self, items: Items, setting: Setting) -> Any:
        """Embed or score."""
        size = setting["batch_size"]
        if self._pairs:
            scores = self._model.rerank_pairs([tuple(item) for item in items], batch_size=size)
            return 1 / (1 + np.exp(-np.asarray(list(scores))))  # it answers logits
        return np.stack(list(self._model.embed(items, batch_size=size)))


def _embedder(job: Job, folder: Path, options: dict[str, Any]) -> Any:
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    pooling = json.loads(
        (Path(job.model) / "1_Pooling" / "config.json").read_text(encoding="utf-8")
    )
    kind = PoolingType.MEAN
    if pooling.get("pooling_mode_cls_token"):
        kind = PoolingType.CLS
    elif pooling.get("pooling_mode_lasttoken"):
        kind = PoolingType.LAST_TOKEN
    TextEmbedding.add_custom_model(
        model=NAME,
        pooling=kind,
        normalization=True,
        sources=ModelSource(hf=NAME),
        dim=int(pooling["word_embedding_dimension"]),
        model_file=file_of(folder, "onnx"),
    )
    return TextEmbedding(NAME, **options)


def _encoder(folder: Path, options: dict[str, Any]) -> Any:
    from fastembed.common.model_description import ModelSource
    from fastembed.rerank.cross_encoder import TextCrossEncoder

    TextCrossEncoder.add_custom_model(
        model=NAME, sources=ModelSource(hf=NAME), model_file=file_of(folder, "onnx")
    )
    return TextCrossEncoder(NAME, **options)


def _folder(job: Job) -> Path:
    return Path(job.folder) / "fastembed"


def prepare(job: Job) -> None:
    """Copy the exported ONNX model; its limit of tokens is where fastembed looks for it."""
    source, folder = Path(job.folder) / "onnx", _folder(job)
    if not (source / PLAIN).exists():
        raise SystemExit("prepare sentence-transformers-onnx first: fastembed takes its ONNX file")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config.pop("max_length", None)
    config["model_max_length"] = job.max_length
    file.write_text(json.dumps(config), encoding="utf-8")


if __name__ == "__main__":
    serve(FastEmbed, prepare)
