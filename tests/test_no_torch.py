"""The runtime and the server where torch, transformers and the compiler cannot be imported.

test_packaging.py says the same of a fresh environment, which takes a minute; this takes a second.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GUARD = """
import sys

REFUSED = ("torch", "transformers", "sentence_transformers", "onnx", "onnxscript", "poolc.compiler")

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name in REFUSED or name.startswith("poolc.compiler."):
            raise ImportError(f"{name} was imported")

sys.meta_path.insert(0, Refuse())
artifact = sys.argv[1]
"""


def run(code: str, artifact: Path) -> str:
    command = [sys.executable, "-W", "error", "-c", GUARD + code, str(artifact)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_guard_refuses() -> None:
    code = "try:\n    import poolc.compiler.recognize\nexcept ImportError as e: print(e)"
    assert run(code, ROOT) == "poolc.compiler was imported"


def test_embed_without_torch(tiny_embedder: Path) -> None:
    code = "import poolc\nprint(poolc.load(artifact).embed(['A sentence.']).shape)"
    assert run(code, tiny_embedder) == "(1, 32)"


def test_llm_without_torch(tiny_embedder: Path) -> None:
    code = (
        "from poolc import LLM\n"
        "print(len(LLM(model=artifact).embed('A sentence.')[0].outputs.embedding))"
    )
    assert run(code, tiny_embedder) == "32"
