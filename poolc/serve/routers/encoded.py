"""Replies of ``/v1/embeddings`` and ``/pooling``: numbers, base64 or bare bytes, as vLLM has them.

Bare bytes are the arrays one after the other; the header ``metadata`` says where each of them is.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from fastapi import Request, Response

from poolc.serve.asking import reply, reply_headers
from poolc.serve.bodies import check_finite, number_list, off_loop_if, usage
from poolc.serve.encoding import encode_base64, encode_bytes
from poolc.serve.registry import Served
from poolc.serve.scheduler import Answer
from poolc.serve.schemas.common import EncodingFields

_Arrays = npt.NDArray[Any] | Sequence[npt.NDArray[Any]]

_OCTETS = "application/octet-stream"
OCTETS_REPLY: Mapping[int | str, dict[str, Any]] = {
    200: {
        "description": "With encoding_format bytes or bytes_only: the arrays, one after the other",
        "content": {_OCTETS: {"schema": {"type": "string", "format": "binary"}}},
    }
}
# What an entry of the reply is called -> its field with the numbers.
_FIELDS = {"embedding": "embedding", "pooling": "data"}
_LARGE_BODY_NUMBERS = 32 << 10  # below it a thread costs more than it takes off the event loop


async def encoded_reply(
    request: Request,
    model: Served,
    asked: EncodingFields,
    answer: Answer,
    rows: _Arrays,
    *,
    kind: Literal["embedding", "pooling"],
    body: Callable[[list[dict[str, Any]]], dict[str, Any]],
    truncated: Collection[int] = (),
) -> Response:
    """Reply with an array a text; ``body`` puts the rest around their entries.

    Entries of texts in ``truncated`` say so. Raises BackendError for numbers that are not finite.
    """
    numbers = rows.size if isinstance(rows, np.ndarray) else sum(row.size for row in rows)

    def entries(of: Callable[[npt.NDArray[Any]], dict[str, Any]]) -> list[dict[str, Any]]:
        for part in [rows] if isinstance(rows, np.ndarray) else rows:
            check_finite(part)
        found = [{"index": index, **of(row)} for index, row in enumerate(rows)]
        for index in truncated:
            found[index]["truncated"] = True
        return found

    if asked.encoding_format in ("bytes", "bytes_only"):
        made = partial(_octets, asked, entries, body)
        content, metadata = await off_loop_if(numbers > _LARGE_BODY_NUMBERS, made)
        headers = dict(reply_headers(model, answer))
        if asked.encoding_format == "bytes":
            headers["metadata"] = metadata
        return Response(content, headers=headers, media_type=_OCTETS)

    encode = _encoder(asked)
    field = _FIELDS[kind]

    def content_of() -> dict[str, Any]:
        return body(entries(lambda row: {"object": kind, field: encode(row)}))

    return await reply(request, model, answer, numbers, content_of)


def reply_body(
    reply_id: str, model: Served, asked: str | None, data: list[dict[str, Any]], answer: Answer
) -> dict[str, Any]:
    """Return the reply of OpenAI's and vLLM's routes; ``asked``: the model that was named."""
    return {
        "id": reply_id,
        "object": "list",
        "created": int(time.time()),
        "model": model.shown_name(asked),
        "data": data,
        "usage": usage(answer.num_tokens),
    }


def _encoder(asked: EncodingFields) -> Callable[[npt.NDArray[Any]], Any]:
    if not asked.as_base64:
        return number_list
    # OpenAI's clients decode little-endian numbers, whatever the server's machine is.
    order = asked.endianness if "endianness" in asked.model_fields_set else "little"
    return partial(encode_base64, dtype=asked.embed_dtype, endianness=order)


def _octets(
    asked: EncodingFields,
    entries: Callable[[Callable[[npt.NDArray[Any]], dict[str, Any]]], list[dict[str, Any]]],
    body: Callable[[list[dict[str, Any]]], dict[str, Any]],
) -> tuple[bytes, str]:
    """Return the arrays one after the other, and the header that says where each begins."""
    found = bytearray()

    def place(row: npt.NDArray[Any]) -> dict[str, Any]:
        start = len(found)
        found.extend(encode_bytes(row, asked.embed_dtype, asked.endianness))
        return {
            "embed_dtype": asked.embed_dtype,
            "endianness": asked.endianness,
            "start": start,
            "end": len(found),
            "shape": list(row.shape),
        }

    metadata = body(entries(place))
    del metadata["object"]
    # Header fields are ASCII without control characters, of which JSON leaves DEL as it is.
    header = json.dumps(metadata, separators=(",", ":")).replace("\x7f", "\\u007f")
    return bytes(found), header
