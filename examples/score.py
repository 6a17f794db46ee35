"""Score documents against a query: python examples/score.py [MODEL]"""

from __future__ import annotations

import sys

from poolc import LLM

QUERY = "What is the capital of France?"
DOCUMENTS = [
    "The capital of Brazil is Brasilia.",
    "The capital of France is Paris.",
]


def main(model: str) -> None:
    llm = LLM(model=model, runner="pooling")
    outputs = llm.score(QUERY, DOCUMENTS)
    for document, output in zip(DOCUMENTS, outputs, strict=True):
        print(f"Pair: {[QUERY, document]!r}\nScore: {output.outputs.score:.4f}\n")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "BAAI/bge-reranker-v2-m3")
