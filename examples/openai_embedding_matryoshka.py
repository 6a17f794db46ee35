"""Shorter vectors through OpenAI's client: openai_embedding_matryoshka.py [BASE_URL [DIMENSIONS]]

A server with a model that was trained for it must run:
poolc serve Snowflake/snowflake-arctic-embed-m-v1.5 --hf-overrides '{"matryoshka_dimensions":[256]}'
"""

from __future__ import annotations

import sys

from openai import OpenAI


def main(base_url: str, dimensions: int) -> None:
    # The server wants no key, but the client insists on one.
    client = OpenAI(base_url=base_url, api_key="none")
    model = client.models.list().data[0].id
    answer = client.embeddings.create(
        model=model, input=["Follow the white rabbit."], dimensions=dimensions
    )
    vector = answer.data[0].embedding
    print(f"{answer.model}: {len(vector)} dimensions, {answer.usage.prompt_tokens} tokens")
    print(vector)


if __name__ == "__main__":
    url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000/v1"
    main(url, int(sys.argv[2]) if len(sys.argv) > 2 else 256)
