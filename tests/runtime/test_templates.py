"""Score templates by themselves: what they render to, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from poolc.errors import InvalidOption
from poolc.model_cache.score_templates import shipped, shipped_text
from poolc.runtime.templates import ScoreTemplate, special_tokens
from tests.runtime.prompts import GEMMA, MXBAI, QWEN3, WEB_SEARCH

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
PAIR = ("why is it cold?", "Ice & <snow>\n")


def template(source: str) -> ScoreTemplate:
    return ScoreTemplate(source, TOKENS)


@pytest.mark.parametrize(
    ("name", "instruction", "prompt"),
    [
        ("qwen3-reranker", None, QWEN3.format(WEB_SEARCH, *PAIR)),
        ("qwen3-reranker", "Find ice", QWEN3.format("Find ice", *PAIR)),
        ("mxbai-rerank-v2", None, MXBAI.format("", *PAIR)),
        ("mxbai-rerank-v2", "Find ice", MXBAI.format("instruction: Find ice\n", *PAIR)),
        ("bge-reranker-v2-gemma", None, GEMMA.format(*PAIR)),
    ],
)
def test_shipped_templates(name: str, instruction: str | None, prompt: str) -> None:
    made = template(shipped_text(name))
    made.check()
    assert made.render(*PAIR, instruction) == prompt


def test_shipped_names() -> None:
    assert shipped() == ["bge-reranker-v2-gemma", "mxbai-rerank-v2", "qwen3-reranker"]
    assert all(template(shipped_text(name)).takes_instruction for name in shipped())


@pytest.mark.parametrize(
    "source",
    [
        "{{ bos_token }}{{ query }} [{{ document }}] {{ instruction | default('none') }}\n",
        "{% for m in messages %}\n  {% if m.role == 'system' %}S{% endif %}\n{{ m['role'] }}: "
        "{{ m.content | tojson }}\n{% endfor %}{{ add_generation_prompt }}",
        "{% for m in messages %}{% if loop.index > 2 %}{% break %}{% endif %}{{ m.content }}"
        "{% endfor %}",
        "{{ instruct | default(messages | selectattr('role', 'eq', 'system') "
        "| map(attribute='content') | first | default('none', true), true) }}: "
        "{{ query }} {{ (messages | selectattr('role', 'eq', 'document') | first).content }}",
    ],
)
@pytest.mark.parametrize("instruction", [None, "Find ice"])
def test_render_as_transformers(source: str, instruction: str | None) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    roles = ["system"] * (instruction is not None) + ["query", "document"]
    contents = [instruction] * (instruction is not None) + [*PAIR]
    messages = [{"role": r, "content": c} for r, c in zip(roles, contents, strict=True)]
    extra: dict[str, Any] = {**TOKENS, "query": PAIR[0], "document": PAIR[1]}
    if instruction is not None:
        extra |= {"instruction": instruction, "instruct": instruction}
    rendered, _ = render_jinja_template([messages], chat_template=source, **extra)
    assert template(source).render(*PAIR, instruction) == rendered[0]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ query }} {{ documnt }}", "uses 'documnt', which it is not given; did you mean docu"),
        ("{{ query }} {{ document }} {{ tools }}", "uses 'tools', which it is not given; known"),
        ("{{ query }} {{ document }} {{ mask_token }}", "uses 'mask_token'"),
        ("{{ query }}\n{% if document %}", "not a Jinja template: line 2: Unexpected end of temp"),
        ("{{ query | no_filter }} {{ document }}", "line 1: No filter named 'no_filter'"),
    ],
)
def test_template_refused(source: str, message: str) -> None:
    with pytest.raises(InvalidOption, match=message) as caught:
        template(source)
    assert caught.value.param == "template"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ query }}", "leaves the document out"),
        ("{{ document }} {{ messages[1].content }}", "leaves the query out"),
        ("{{ messages[0].text }} {{ document }}", "has no attribute 'text'"),
        ("{{ query.__class__.__mro__ }}{{ document }}", "access to attribute '__class__'"),
        ("{{ messages.append(1) }}{{ query }}{{ document }}", "is not safely callable|unsafe"),
        ("{{ query + 1 }}{{ document }}", "can only concatenate str"),
        ("{{ query }}{{ document // 0 }}", "unsupported operand"),
        ("{{ raise_exception('no such role') }}{{ query }}{{ document }}", "no such role"),
        ("{% include 'x' %}{{ query }}{{ document }}", "no loader"),
    ],
)
def test_template_that_cannot_be_rendered(source: str, message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        template(source).check()


def test_render_without_the_instruction_it_needs() -> None:
    made = template("{{ instruction }}: {{ query }} {{ document }}")
    made.check()
    assert made.needs_instruction
    with pytest.raises(InvalidOption, match="'instruction' is undefined: pass an instruction"):
        made.render(*PAIR)


def test_render_without_end() -> None:
    loop = "{% for i in range(99999) %}{% for j in range(999) %}{{ query }}{% endfor %}{% endfor %}"
    with pytest.raises(InvalidOption, match="makes more than 1048"):
        template(loop + "{{ document }}").render(*PAIR)


def test_special_tokens_of_a_tokenizer_config() -> None:
    settings = {"bos_token": None, "eos_token": {"content": "</s>"}, "pad_token": "<p>", "x": "y"}
    assert special_tokens(settings) == {"eos_token": "</s>", "pad_token": "<p>"}
