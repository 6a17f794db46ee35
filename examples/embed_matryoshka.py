"""Shorter vectors from a Matryoshka model: embed_matryoshka.py [MODEL [DIMENSIONS]]"""

from __future__ import annotations

import sys

from poolc import LLM, PoolingParams

PROMPTS = [
    "Follow the white rabbit.",
    "Sigue al conejo blanco.",
]


def main(model: str, dimensions: int) -> None:
    # A model that was trained for it but does not say so in its config.json is told here:
    # LLM(..., hf_overrides={"matryoshka_dimensions": [256]}).
    llm = LLM(model=model, runner="pooling")
    outputs = llm.embed(PROMPTS, pooling_params=PoolingParams(dimensions=dimensions))
    for prompt, output in zip(PROMPTS, outputs, strict=True):
        embeds = output.outputs.embedding
        shown = ", ".join(f"{number:.4f}" for number in embeds[:8])
        print(f"Prompt: {prompt!r}\nEmbeddings: [{shown}, ...] (size={len(embeds)})\n")


if __name__ == "__main__":
    chosen = sys.argv[1] if len(sys.argv) > 1 else "Snowflake/snowflake-arctic-embed-m-v1.5"
    main(chosen, int(sys.argv[2]) if len(sys.argv) > 2 else 256)
