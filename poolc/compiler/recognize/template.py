"""The score template of a reranker: an option's, or the one of the model's published format."""

from __future__ import annotations

from dataclasses import dataclass

from poolc.compiler.architecture import Architecture
from poolc.compiler.choices import Choices
from poolc.compiler.logit_score import chat_template
from poolc.compiler.recognize.context import Context
from poolc.errors import InvalidOption, UnsupportedModel
from poolc.model_cache.manifest import SCORE_TEMPLATE_FILE
from poolc.model_cache.score_templates import shipped_text
from poolc.runtime.templates import ScoreTemplate, special_tokens
from poolc.spec import Kind, Trunk

_ST_FILE = "config_sentence_transformers.json"
_DEFAULT_PROMPT = f"{_ST_FILE}: default_prompt_name"
_QWEN3, _QWEN3_KEY = "qwen3-reranker", "is_original_qwen3_reranker"


@dataclass(frozen=True, slots=True)
class _Found:
    """A template's text, where it comes from, and what errors call it."""

    text: str
    origin: str
    param: str = "score_template"


def choose_template(context: Context, arch: Architecture, choices: Choices) -> str | None:
    """Set ``template``; return its text. Raises InvalidOption or UnsupportedModel."""
    _check_options(context, choices)
    found = _of_option(context) or _of_files(context, choices)
    if found is None:
        if arch.trunk is Trunk.CAUSAL_LM and choices.values["kind"] is Kind.CLASSIFIER:
            context.warn(
                "this reranker is made from a language model and has no score template: name one "
                "(--score-template), or pass prompts as its authors write them to classify; score "
                "puts two texts together as its tokenizer does"
            )
        _choose_pair_prompt(context, choices)
        return None
    try:
        _check(found, context, choices)
    except InvalidOption as error:
        if context.options.score_template is not None:
            raise
        raise UnsupportedModel(f"{found.origin}: {error}") from error
    choices.set("template", SCORE_TEMPLATE_FILE, found.origin)
    choices.set("pairs", True, found.origin)
    return found.text


def _check_options(context: Context, choices: Choices) -> None:
    kind = choices.values["kind"]
    if context.options.score_template is not None and kind is not Kind.CLASSIFIER:
        raise InvalidOption(
            "score_template makes one prompt of a pair for models that read both texts at once; "
            f"this one is of kind {kind}: leave it out",
            param="score_template",
        )
    named = getattr(context.config, "classifier_from_token", None) is not None
    if getattr(context.config, _QWEN3_KEY, False) and not named:
        raise UnsupportedModel(
            f"config.json: {_QWEN3_KEY} needs classifier_from_token, which says which tokens are "
            'the answers: add "classifier_from_token": ["no", "yes"] (--hf-overrides)'
        )


def _of_option(context: Context) -> _Found | None:
    text = context.options.score_template
    return None if text is None else _Found(text, "--score-template")


def _of_files(context: Context, choices: Choices) -> _Found | None:
    if getattr(context.config, _QWEN3_KEY, False):
        return _Found(shipped_text(_QWEN3), f"config.json: {_QWEN3_KEY}")
    module = context.logit_score
    text = None if module is None else chat_template(module, context.tokenizer)
    if text is None:
        return None
    origin = "the tokenizer's chat template"
    # transformers leaves special tokens to chat templates.
    choices.set("template_special_tokens", False, origin)
    _choose_instruction(context, choices)
    return _Found(text, origin, "chat_template")


def _choose_instruction(context: Context, choices: Choices) -> None:
    """Sentence Transformers' default prompt is a message of role system, before the pair."""
    _, prompt = _default_prompt(context)
    if prompt:
        choices.set("instruction", prompt, _DEFAULT_PROMPT)


def _choose_pair_prompt(context: Context, choices: Choices) -> None:
    """Without a template, the default prompt of a cross-encoder stands before the left text."""
    st = context.st
    if choices.values["kind"] is not Kind.CLASSIFIER or not st or st.model_type != "CrossEncoder":
        return
    name, prompt = _default_prompt(context)
    if prompt:
        choices.set("prompts", {name: prompt}, f"{_ST_FILE}: prompts")
        choices.set("default_prompt_name", name, _DEFAULT_PROMPT)


def _default_prompt(context: Context) -> tuple[str, str]:
    """Return the name and the text of the default prompt, "" for none. Raises UnsupportedModel."""
    settings = context.st.settings if context.st else {}
    name = settings.get("default_prompt_name")
    if name is None:
        return "", ""
    prompts = settings.get("prompts") or {}
    prompt = prompts.get(name) if isinstance(prompts, dict) else None
    if not isinstance(prompt, str):
        raise UnsupportedModel(f"{_DEFAULT_PROMPT} {name!r} is not among the prompts")
    return str(name), prompt


def _check(found: _Found, context: Context, choices: Choices) -> None:
    """Refuse a template that cannot be rendered, or that leaves no room for texts."""
    tokenizer = context.tokenizer
    tokens = special_tokens(tokenizer.special_tokens_map)
    template = ScoreTemplate(found.text, tokens, found.param)
    template.check()
    prompt = template.render("a", "a", "a" if template.needs_instruction else None)
    special = choices.get("template_special_tokens", True)
    num_tokens = len(tokenizer(prompt, add_special_tokens=special)["input_ids"])
    limit = choices.values["max_length"]
    if num_tokens > limit:
        raise InvalidOption(
            f"{found.param} makes {num_tokens} tokens of two letters, and the maximum length is "
            f"{limit}: raise it (--max-length) where the model allows, or use a shorter template",
            param="score_template",
        )
