"""Embed a few prompts: python examples/embed.py [MODEL]"""

from __future__ import annotations

import sys

from poolc import LLM

PROMPTS = [
    "Hello, my name is",
    "The president of the United States is",
    "The capital of France is",
    "The future of AI is",
]


def main(model: str) -> None:
    llm = LLM(model=model, runner="pooling")
    outputs = llm.embed(PROMPTS)
    for prompt, output in zip(PROMPTS, outputs, strict=True):
        embeds = output.outputs.embedding
        shown = ", ".join(f"{number:.4f}" for number in embeds[:8])
        print(f"Prompt: {prompt!r}\nEmbeddings: [{shown}, ...] (size={len(embeds)})\n")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "intfloat/e5-small")
