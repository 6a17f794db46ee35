"""What a process that loads an artifact and embeds a text imports: nothing that costs seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = """
import sys
import poolc

assert poolc.load(sys.argv[1]).embed("A sentence.").shape == (1, 32)
print(*{name.partition(".")[0] for name in sys.modules})
"""
HEAVY = {
    "torch",
    "transformers",
    "sentence_transformers",
    "onnx",
    "onnxscript",
    "huggingface_hub",
    "safetensors",
    "pydantic",
    "fastapi",
    "uvicorn",
    "typer",
    "rich",
    "asyncio",
}


def test_cold_start_imports_nothing_heavy(tiny_embedder: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", SCRIPT, str(tiny_embedder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not set(done.stdout.split()) & HEAVY
