"""Options that several commands share, and what they mean to the library."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Annotated, Any

import typer

from poolc.errors import InvalidOption

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="An artifact, a model folder or a hub id.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@dataclass(frozen=True, slots=True)
class LoadArguments:
    """Options of loading a model that change no artifact; None means not given."""

    memory_limit: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Most memory, e.g. 2GB, of each model: longer texts are refused with what they "
            "would take, and long ones do not run side by side beyond it.",
        ),
    ] = None
    device: Annotated[
        str | None,
        typer.Option(
            metavar="DEVICE",
            help="Where an artifact for GPUs runs: cuda (the first GPU, the default), cuda:1, or "
            "several: cuda:0,cuda:1.",
        ),
    ] = None
    trust_plan: Annotated[
        bool,
        typer.Option(
            "--trust-plan",
            help="Load a TensorRT engine, which is code, from outside this machine's store.",
        ),
    ] = False
    rebuild: Annotated[
        bool,
        typer.Option(
            "--rebuild",
            help="Build a TensorRT engine that is not trusted, or is another machine's, again "
            "here from the ONNX in the artifact.",
        ),
    ] = False

    def given(self) -> dict[str, Any]:
        """Return what was given, as keywords of ``poolc.load``."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {n: value for n, value in values.items() if value is not None and value is not False}


@dataclass(frozen=True, slots=True)
class CompileArguments:
    """Every option of ``poolc compile`` that changes the artifact; None means not given."""

    target: Annotated[
        str | None,
        typer.Option(
            help="What to compile for: cpu (the default), cuda, tensorrt or tensorrt-rtx."
        ),
    ] = None
    precision: Annotated[
        str | None,
        typer.Option(
            help="Number format: fp32; on cpu also int8, on GPUs fp16 and bf16, in TensorRT fp8."
        ),
    ] = None
    runner: Annotated[
        str | None,
        typer.Option(help="auto (the default), pooling or generate."),
    ] = None
    convert: Annotated[
        str | None,
        typer.Option(
            help="What to make of the model: auto (the default), none, embed, "
            "embed_sparse, classify or reward.",
        ),
    ] = None
    pooler_config: Annotated[
        str | None,
        typer.Option(metavar="JSON", help='Pooling, e.g. {"pooling_type": "MEAN"}.'),
    ] = None
    hf_overrides: Annotated[
        str | None,
        typer.Option(
            metavar="JSON",
            help='Keys of config.json, e.g. {"is_matryoshka": true}.',
        ),
    ] = None
    max_length: Annotated[
        int | None,
        typer.Option(
            "--max-length",
            "--max-model-len",
            help="Longest text in tokens; the model's own by default.",
        ),
    ] = None
    revision: Annotated[
        str | None,
        typer.Option(help="Branch, tag or commit on the hub."),
    ] = None
    tokenizer: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Another model's tokenizer."),
    ] = None
    score_template: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Jinja template that makes one prompt of a text pair, for rerankers: a file, or "
            "qwen3-reranker, mxbai-rerank-v2 or bge-reranker-v2-gemma.",
        ),
    ] = None
    defaults: Annotated[
        str | None,
        typer.Option(
            help="Whose pooling holds where the model says nothing: sentence-transformers (the "
            "default) or vllm.",
        ),
    ] = None
    trust_remote_code: Annotated[
        bool,
        typer.Option(
            "--trust-remote-code",
            help="Run Python code that comes with the model.",
        ),
    ] = False
    allow_pickle: Annotated[
        bool,
        typer.Option(
            "--allow-pickle",
            help="Load weights that could run code while loading.",
        ),
    ] = False
    calibrate: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Texts like yours that int8 and fp8 are calibrated on: one a line, or JSON "
            "lines; a few hundred are read. poolc's own by default.",
        ),
    ] = None
    tune: Annotated[
        str | None,
        typer.Option(
            metavar="MODE|ARTIFACT",
            help="quick (the default: seconds) or full (a minute or two) times rewrites of the "
            "graph on this machine; off ships untimed ones; an artifact, or a JSON file, names a "
            "tuning record to use again.",
        ),
    ] = None
    from_onnx: Annotated[
        bool,
        typer.Option(
            "--from-onnx",
            help="Compile the ONNX graph that the model ships instead of its weights; the default "
            "where PyTorch is not installed.",
        ),
    ] = False
    keep_canonical: Annotated[
        bool,
        typer.Option("--keep-canonical", help="Keep the canonical graph."),
    ] = False
    profiles: Annotated[
        str | None,
        typer.Option(
            "--profiles",
            "--profile",
            metavar="auto|SHAPES",
            help="Shapes that engines are built for: auto (the default), or "
            "batch=1..64,seq=16..512 (least..most, or least..tuned for..most), several separated "
            "by semicolons.",
        ),
    ] = None
    compute_capability: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="GPUs that tensorrt-rtx compiles for, e.g. 8.9,12.0; this machine's by default.",
        ),
    ] = None
    optimization_level: Annotated[
        int | None,
        typer.Option(
            "--optimization-level",
            "--builder-optimization-level",
            help="How long TensorRT looks for fast kernels: 0 to 5; the library's by default (3).",
        ),
    ] = None
    workspace: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Most device memory that one kernel of an engine may take to work in, e.g. 2GB.",
        ),
    ] = None
    hardware_compatibility: Annotated[
        str | None,
        typer.Option(
            help="Which other GPUs run a TensorRT engine: none (the default), "
            "same-compute-capability or ampere-plus. Costs speed.",
        ),
    ] = None
    version_compatible: Annotated[
        bool,
        typer.Option(
            "--version-compatible",
            help="Let later releases of TensorRT's major version run the engine. Costs speed.",
        ),
    ] = False
    refresh: Annotated[
        bool,
        typer.Option(
            "--refresh",
            help="Ask the hub for a newer commit and compile again.",
        ),
    ] = False

    def given(self) -> dict[str, Any]:
        """Return what was given, as keywords of ``poolc.load`` and ``poolc.compile``.

        Raises InvalidOption for JSON that cannot be read.
        """
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in ("pooler_config", "hf_overrides"):
            values[name] = json_object(f"--{name.replace('_', '-')}", values[name])
        # A flag that was not raised is not given either; 0 was.
        return {n: v for n, v in values.items() if v is not None and v is not False}


def json_object(option: str, text: str | None) -> dict[str, Any] | None:
    """Parse the JSON object given to ``option``. Raises InvalidOption with the position."""
    if text is None:
        return None
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidOption(
            f"{option} is not JSON at position {error.pos}: {error.msg}; given: {text}",
            param=option,
        ) from None
    if not isinstance(value, dict):
        raise InvalidOption(
            f'{option} must be a JSON object like {{"key": value}}; given: {text}', param=option
        )
    return value
