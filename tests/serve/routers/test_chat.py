"""Chat ``messages`` on the routes that take them: what transformers' template makes of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import poolc
from poolc.runtime.engine import Engine
from tests.serve.conftest import MakeClient
from tests.serve.speaking import answer, refusal

TEMPLATE = (
    "{% for m in messages %}[CLS] {{ m.role }} {{ m.content }} [SEP]{% endfor %}"
    "{% if add_generation_prompt %} assistant{% endif %}{% if loud %} loud{% endif %}"
)
MESSAGES = [
    {"role": "user", "content": "the quick brown fox"},
    {"role": "assistant", "content": [{"type": "text", "text": "a river"}, {"text": "runs"}]},
]
FLAT = [MESSAGES[0], {"role": "assistant", "content": "a river\nruns"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_embedder_source: Path) -> Path:
    """A model whose template is a file of its own, as newer transformers saves it."""
    made = tmp_path_factory.mktemp("chat") / "model"
    shutil.copytree(tiny_embedder_source, made)
    (made / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def chatty(folder: Path) -> Engine:
    return poolc.load(folder, on_event=lambda event: None)


@pytest.fixture
def client(chatty: Engine, make_client: MakeClient) -> httpx.AsyncClient:
    return make_client(chatty=chatty)


def templated(folder: Path, **options: Any) -> list[int]:
    from transformers import AutoTokenizer

    words = AutoTokenizer.from_pretrained(folder)
    text = words.apply_chat_template(FLAT, tokenize=False, **options)
    ids: list[int] = words(text, add_special_tokens=False)["input_ids"]
    return ids


@pytest.mark.parametrize("path", ["/v1/embeddings", "/pooling", "/invocations"])
@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({}, {}),
        ({"add_generation_prompt": True}, {"add_generation_prompt": True}),
        ({"chat_template_kwargs": {"loud": True}}, {"loud": True}),
    ],
)
def test_messages_are_one_text(
    client: httpx.AsyncClient,
    chatty: Engine,
    folder: Path,
    path: str,
    fields: dict[str, Any],
    options: dict[str, Any],
) -> None:
    body = answer(client, path, messages=MESSAGES, **fields)
    (entry,) = body["data"]
    ids = templated(folder, **options)
    found = np.array(entry.get("embedding") or entry.get("data"), np.float32)
    assert np.array_equal(found, chatty.embed([ids])[0])
    assert body["usage"]["prompt_tokens"] == len(ids)


def test_special_tokens_only_where_they_are_asked_for(
    client: httpx.AsyncClient, folder: Path
) -> None:
    body = answer(client, "/v1/embeddings", messages=MESSAGES, add_special_tokens=True)
    assert body["usage"]["prompt_tokens"] == len(templated(folder)) + 2


def test_tokens_of_messages(client: httpx.AsyncClient, folder: Path) -> None:
    body = answer(client, "/tokenize", messages=MESSAGES)
    assert body["tokens"] == templated(folder, add_generation_prompt=True)
    body = answer(client, "/tokenize", messages=MESSAGES, add_generation_prompt=False)
    assert body["tokens"] == templated(folder)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"input": "a", "messages": MESSAGES}, "input and messages are both there"),
        ({"messages": []}, "messages"),
        ({"messages": [{"content": "a"}]}, "role is missing"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "part 0 is of type 'image_url': this server reads text only",
        ),
        ({"messages": MESSAGES, "chat_template": "x"}, "templates of requests are not run"),
        (
            {"messages": MESSAGES, "chat_template_kwargs": {"messages": []}},
            "chat_template_kwargs has messages",
        ),
        (
            {"messages": MESSAGES, "chat_template_kwargs": {"self": 1}},
            "chat_template_kwargs has self",
        ),
        (
            {"messages": MESSAGES, "add_generation_prompt": True, "continue_final_message": True},
            "contradict each other",
        ),
    ],
)
def test_messages_that_are_refused(
    client: httpx.AsyncClient, fields: dict[str, Any], message: str
) -> None:
    assert message in refusal(client, "/v1/embeddings", **fields)["message"]


def test_tokens_of_messages_that_are_refused(client: httpx.AsyncClient) -> None:
    kwargs = {"add_generation_prompt": True}
    found = refusal(client, "/tokenize", messages=MESSAGES, chat_template_kwargs=kwargs)
    assert "chat_template_kwargs has add_generation_prompt" in found["message"]
    assert (
        "prompt or messages"
        in refusal(client, "/tokenize", messages=MESSAGES, prompt="a")["message"]
    )
