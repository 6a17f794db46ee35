"""Sentence Transformers: its torch, ONNX and OpenVINO backends, with the exports that it documents.

Variants: ``torch``; ``onnx`` (optimised at O3) and ``onnx-int8`` (its avx512_vnni export);
``openvino`` in fp32, ``openvino-default`` as it comes, and ``openvino-int8`` (its static export:
NNCF with SmoothQuant). It sorts by length and pads to the longest of a batch itself; the batch size
is the user's to choose, and for OpenVINO the performance hint.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from benchmarks.systems.protocol import Items, Job, Setting, batch_sizes, serve

FILES = {
    "onnx": "onnx/model_O3.onnx",
    "onnx-int8": "onnx/model_qint8_avx512_vnni.onnx",
    "openvino": "openvino/openvino_model.xml",
    "openvino-default": "openvino/openvino_model.xml",
    "openvino-int8": "openvino/openvino_model_qint8_quantized.xml",
}
PLAIN = "onnx/model.onnx"
HINTS = ("LATENCY", "THROUGHPUT")
CALIBRATION = "calibration"  # a folder with train.jsonl, beside the exports


class SentenceTransformers:
    """An embedder or a cross-encoder, on one of the backends."""

    def __init__(self, job: Job) -> None:
        self._pairs = job.task == "score"
        self._models = {hint: _load(job, hint) for hint in _hints(job)}
        self.settings: list[Setting] = [
            {**setting, "hint": hint} for hint in self._models for setting in batch_sizes()
        ]

    def run(self, items: Items, setting: Setting) -> Any:
        """Embed or score."""
        model = self._models[setting["hint"]]
        options = {"batch_size": setting["batch_size"], "show_progress_bar": False}
        if self._pairs:
            return model.predict([tuple(item) for item in items], **options)
        return model.encode(items, **options)


def _hints(job: Job) -> tuple[str, ...]:
    return HINTS if job.variant.startswith("openvino") else ("",)


def _load(job: Job, hint: str) -> Any:
    backend = job.variant.partition("-")[0]
    if backend == "torch":
        return _class(job)(job.model, device="cpu", **_length(job))
    options: dict[str, Any] = {"file_name": file_of(exported(job), job.variant)}
    if backend == "onnx":
        options["provider"] = "CPUExecutionProvider"
    else:
        options["ov_config"] = {"PERFORMANCE_HINT": hint}
        if job.variant == "openvino":  # else it computes in bf16 where the CPU has it
            options["ov_config"]["INFERENCE_PRECISION_HINT"] = "f32"
    return _class(job)(
        str(exported(job)), device="cpu", backend=backend, model_kwargs=options, **_length(job)
    )


def file_of(folder: Path, variant: str) -> str:
    """Return the file of a variant: the plain export where optimum cannot optimise a family."""
    optimised = variant != "onnx" or (folder / FILES["onnx"]).exists()
    return FILES[variant] if optimised else PLAIN


def exported(job: Job) -> Path:
    """Return where the exported files of a job's backend lie."""
    return Path(job.folder) / job.variant.partition("-")[0]


def _class(job: Job) -> Any:
    from sentence_transformers import CrossEncoder, SentenceTransformer

    return CrossEncoder if job.task == "score" else SentenceTransformer


def _length(job: Job) -> dict[str, Any]:
    return {"max_length": job.max_length} if job.task == "score" else {}


def prepare(job: Job) -> None:
    """Export what the variant needs; the torch backend needs nothing."""
    backend = job.variant.partition("-")[0]
    if backend == "torch" or (exported(job) / FILES[job.variant]).exists():
        return
    folder = exported(job)
    base = folder / (PLAIN if backend == "onnx" else FILES["openvino"])
    if not base.exists():
        _export(job, backend, folder)
    _derive(job, backend, folder)


def _export(job: Job, backend: str, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    options: dict[str, Any] = {"export": True}
    if backend == "onnx":
        options["provider"] = "CPUExecutionProvider"
    model = _class(job)(
        job.model, device="cpu", backend=backend, model_kwargs=options, **_length(job)
    )
    model.save_pretrained(str(folder))


def _derive(job: Job, backend: str, folder: Path) -> None:
    """Write the optimised or quantised file beside the plain one, by the documented functions."""
    import sentence_transformers as library

    if FILES[job.variant] == FILES["openvino"]:
        return
    name = FILES["openvino"] if backend == "openvino" else PLAIN
    model = _class(job)(
        str(folder), device="cpu", backend=backend, model_kwargs={"file_name": name}, **_length(job)
    )
    if job.variant == "onnx":
        try:
            library.export_optimized_onnx_model(model, "O3", str(folder))
        except Exception as error:  # optimum's share no base; families it knows no fusions for
            print(f"not optimised, the plain export is measured: {error}")
    elif job.variant == "onnx-int8":
        library.export_dynamic_quantized_onnx_model(model, "avx512_vnni", str(folder))
    else:
        _quantize_openvino(job, model, folder)


def _quantize_openvino(job: Job, model: Any, folder: Path) -> None:
    """Quantise as documented; the texts are ours, since its default ones are on a hub."""
    from sentence_transformers import export_static_quantized_openvino_model

    export_static_quantized_openvino_model(
        model,
        quantization_config=None,  # NNCF's defaults for transformers, SmoothQuant among them
        model_name_or_path=str(folder),
        dataset_name=str(Path(job.folder) / CALIBRATION),
        dataset_config_name="default",
        dataset_split="train",
        column_name="text",
    )


if __name__ == "__main__":
    serve(SentenceTransformers, prepare)
