"""Classify a few prompts: python examples/classify.py [MODEL]"""

from __future__ import annotations

import sys

from poolc import LLM

PROMPTS = [
    "What a wonderful evening that was.",
    "The parcel arrived on Tuesday.",
    "I want my money back.",
]


def main(model: str) -> None:
    llm = LLM(model=model, runner="pooling")
    outputs = llm.classify(PROMPTS)
    for prompt, output in zip(PROMPTS, outputs, strict=True):
        probs = output.outputs.probs
        shown = ", ".join(f"{number:.4f}" for number in probs)
        print(f"Prompt: {prompt!r}\nClass Probabilities: [{shown}] (size={len(probs)})\n")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "cardiffnlp/twitter-roberta-base-sentiment-latest")
