"""Chat templates, against transformers' own rendering of the same source."""

from __future__ import annotations

from typing import Any

import pytest

from poolc.errors import InvalidOption
from poolc.runtime.chat import ChatTemplate
from poolc.runtime.engine import Engine

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
MESSAGES = [
    {"role": "system", "content": "Answer briefly."},
    {"role": "user", "content": "Where is  the cat?\n"},
    {"role": "assistant", "content": "On the sill."},
]
CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' "
    "+ message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
SOURCES = {
    "chatml": CHATML,
    "whitespace and loops": (
        "{{ bos_token }}\n{%- for m in messages %}\n  {% if m.role == 'system' %}\n"
        "[{{ m.content | trim }}]\n{% elif loop.last %}\n{{ m.content }}{{ eos_token }}\n"
        "{% else %}\n{{ m.content | tojson }}\n{% endif %}\n{%- endfor %}"
    ),
    "generation": (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
        "{% endgeneration %}{% else %}{{ m.content }} | {% endif %}{% endfor %}"
    ),
    "what is not given": "{{ nothing }}{% if tools %}T{% endif %}{{ messages | length }}",
    "variables": "{% if thinking is defined and thinking %}T{% endif %}{{ messages[0].content }}",
}


def transformers_renders(source: str, **options: Any) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    rendered, _ = render_jinja_template([MESSAGES], chat_template=source, **TOKENS, **options)
    return str(rendered[0])


@pytest.mark.parametrize("options", [{}, {"add_generation_prompt": True}])
@pytest.mark.parametrize("name", SOURCES)
def test_renders_as_transformers(name: str, options: dict[str, Any]) -> None:
    found = ChatTemplate(SOURCES[name], TOKENS).render(MESSAGES, **options)
    assert found == transformers_renders(SOURCES[name], **options)


def test_variables_of_a_request() -> None:
    source = SOURCES["variables"]
    found = ChatTemplate(source, TOKENS).render(MESSAGES, variables={"thinking": True})
    assert found == transformers_renders(source, thinking=True) == "TAnswer briefly."


def test_a_message_that_is_to_be_continued() -> None:
    found = ChatTemplate(CHATML, TOKENS).render(MESSAGES, continue_final_message=True)
    assert found == transformers_renders(CHATML, continue_final_message=True)
    assert found.endswith("On the sill.")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{% if %}", "is not a Jinja template: line 1"),
        ("{{ raise_exception('roles must alternate') }}", "cannot be rendered: roles must altern"),
        ("{{ messages.__class__.__mro__ }}", "cannot be rendered: access to attribute"),
        ("{% for i in range(99999999) %}xxxxxxxxxxxxxxxx{% endfor %}", "cannot be rendered: Range"),
        ("{% for i in range(90000) %}{{ 'x' * 100 }}{% endfor %}", "makes more than"),
    ],
)
def test_templates_that_go_wrong(source: str, message: str) -> None:
    with pytest.raises(InvalidOption, match=message) as caught:
        ChatTemplate(source, TOKENS).render(MESSAGES)
    assert caught.value.param == "messages"


def test_both_ways_to_end() -> None:
    with pytest.raises(InvalidOption, match="contradict each other"):
        ChatTemplate(CHATML, TOKENS).render(
            MESSAGES, add_generation_prompt=True, continue_final_message=True
        )


def test_a_model_without_a_template(embedder: Engine) -> None:
    with pytest.raises(InvalidOption, match="has no chat template: send the text"):
        embedder.chat_prompt(MESSAGES)
