"""OpenVINO at its best for throughput: asynchronous requests over the files of its own export.

Sentence Transformers' OpenVINO backend runs one batch at a time, which leaves the streams of the
throughput hint idle. This program sorts by length, keeps all streams busy and pools in NumPy: what
somebody who reads OpenVINO's manual would write. Variants: ``fp32``, ``default`` (of the same
weights, which OpenVINO computes in bf16 where the CPU has it) and ``int8``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.systems.protocol import Items, Job, Setting, batch_sizes, serve
from benchmarks.systems.sentence_transformers import FILES


class OpenVino:
    """A compiled model with a queue of requests, one a stream."""

    settings: list[Setting] = batch_sizes(8, 1, 4, 32)

    def __init__(self, job: Job) -> None:
        import openvino
        from tokenizers import Tokenizer

        if job.task == "score":
            raise NotImplementedError("this program embeds; use sentence-transformers-openvino")
        folder = Path(job.folder) / "openvino"
        file = FILES["openvino-int8" if job.variant == "int8" else "openvino"]
        options: dict[str, Any] = {"PERFORMANCE_HINT": "THROUGHPUT"}
        if job.variant == "fp32":
            options["INFERENCE_PRECISION_HINT"] = "f32"
        if job.threads:
            options["INFERENCE_NUM_THREADS"] = job.threads
        compiled = openvino.compile_model(folder / file, "CPU", options)
        self._inputs = [port.any_name for port in compiled.inputs]
        self._queue = openvino.AsyncInferQueue(compiled)
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(job.max_length)
        self._pool = _pooling(Path(job.model))
        self._queue.set_callback(self._finished)
        self._rows: dict[int, npt.NDArray[np.float32]] = {}

    def run(self, items: Items, setting: Setting) -> Any:
        """Embed."""
        encoded = self._tokenizer.encode_batch_fast(items)
        order = sorted(range(len(items)), key=lambda i: -len(encoded[i].ids))
        size = setting["batch_size"]
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            feeds = self._feeds([encoded[i].ids for i in chosen])
            self._queue.start_async(feeds, (chosen, feeds["attention_mask"]))
        self._queue.wait_all()
        return np.stack([self._rows[i] for i in range(len(items))])

    def _feeds(self, ids: list[list[int]]) -> dict[str, npt.NDArray[np.int64]]:
        shape = (len(ids), max(len(row) for row in ids))
        feeds = {name: np.zeros(shape, np.int64) for name in self._inputs}
        if "position_ids" in feeds:
            feeds["position_ids"][:] = np.arange(shape[1])
        for i, row in enumerate(ids):
            feeds["input_ids"][i, : len(row)] = row
            feeds["attention_mask"][i, : len(row)] = 1
        return feeds

    def _finished(self, request: Any, given: Any) -> None:
        chosen, mask = given
        pooled = self._pool(request.get_output_tensor(0).data, mask)
        pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
        self._rows.update(zip(chosen, pooled, strict=True))


def _pooling(model: Path) -> Any:
    config = json.loads((model / "1_Pooling" / "config.json").read_text(encoding="utf-8"))
    if config.get("pooling_mode_cls_token"):
        return lambda tokens, mask: tokens[:, 0].copy()
    if config.get("pooling_mode_lasttoken"):
        return lambda tokens, mask: tokens[np.arange(len(mask)), mask.sum(1) - 1].copy()
    return _mean


def _mean(tokens: npt.NDArray[np.float32], mask: npt.NDArray[np.int64]) -> Any:
    weights = mask.astype(np.float32)
    return np.einsum("bsd,bs->bd", tokens, weights) / weights.sum(1, keepdims=True)


if __name__ == "__main__":
    serve(OpenVino)
